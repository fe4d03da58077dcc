// SPDX-License-Identifier: MIT
//! Where the two sides meet: what FreeSWITCH calls, and the sinks behind it.
//!
//! [`Bridge`] is what the exported symbol runs. Everything there is belongs to one [`Module`],
//! which `load` puts into the one slot and `shutdown` takes out again; nothing else of ours is static,
//! since the library stays mapped from one load to the next. But the allocator is the process's: which
//! threads may wait for memory, and how often one did, it keeps from load to load.

mod command;
mod handler;
mod live_calls;
mod publish;
mod sinks;
mod source;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use once_cell::sync::Lazy;

use self::handler::Handler;
use self::live_calls::LiveCalls;
use self::sinks::SinkSet;
use crate::pipeline::Background;
use crate::queue::Pool;
use crate::sink::Interrupt;
use crate::switch::{
    Core, Interfaces, Load, Missing, PanicWatch, Subscription, self_test, thread, watch_panics,
};

/// What FreeSWITCH loads.
#[derive(Debug)]
pub(crate) struct Bridge;

/// The module while it is loaded.
struct Module {
    core: Core,
    since: SystemTime,
    started: Instant,
    pool: Arc<Pool>,
    handler: Arc<Handler>,
    subscription: Mutex<Option<Subscription<Handler>>>,
    sinks: Mutex<SinkSet>,
    live_calls: Mutex<Option<LiveCalls>>,
    interfaces: Interfaces,
    missing: Arc<Mutex<Vec<Missing>>>,
    check: Mutex<Option<(Arc<Interrupt>, Background)>>,
    calls: AtomicUsize,
    _panics: PanicWatch,
}

/// The module, from the end of load to the begin of shutdown.
#[expect(
    clippy::non_std_lazy_statics,
    reason = "once_cell is a given of the project; this slot is the one thing it is for"
)]
static SLOT: Lazy<Mutex<Option<Arc<Module>>>> = Lazy::new(Mutex::default);

/// Takes a lock whatever happened under it before: all that our locks guard is whole between any
/// two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command in progress, which shutdown waits for.
struct Call(Arc<Module>);

impl Call {
    /// The module, if it is loaded.
    fn begin() -> Option<Self> {
        let slot = lock(&SLOT);
        let module = slot.as_ref().map(Arc::clone)?;
        // Under the lock, so that shutdown, which empties the slot first, sees every call.
        module.calls.fetch_add(1, Ordering::AcqRel);
        Some(Self(module))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Records that are ready for dispatch threads, and how large. A CHANNEL event with its variables
/// takes about four kilobytes.
const POOL_RESERVE: usize = 2048;
const POOL_CAPACITY: usize = 16 * 1024;
const POOL_RECORD_BYTES: usize = 8 * 1024;

/// How long shutdown waits for events that the core has queued already.
const CATCH_UP: Duration = Duration::from_secs(1);
/// What of the shutdown's time is kept for joining threads that are done.
const JOIN_TIME: Duration = Duration::from_millis(700);

impl Load for Bridge {
    const NAME: &'static std::ffi::CStr = c"mod_rustbridge";

    fn load(mut interfaces: Interfaces) -> Result<(), String> {
        let said = |error: &dyn std::error::Error| format!("mod_rustbridge is not loaded: {error}");
        if lock(&SLOT).is_some() {
            return Err("mod_rustbridge is not loaded: it is loaded already".into());
        }
        let panics = watch_panics();
        self_test().map_err(|error| said(&error))?;
        let core = Core::ask().map_err(|error| said(&error))?;
        let config = source::read(&core)
            .map_err(|problems| format!("mod_rustbridge is not loaded. {problems}"))?;
        let custom = Core::kind_of(c"CUSTOM").ok_or("this FreeSWITCH has no event CUSTOM")?;
        command::register(&mut interfaces).map_err(|error| said(&error))?;

        let pool = Arc::new(Pool::new(POOL_CAPACITY, POOL_RESERVE, POOL_RECORD_BYTES));
        let mut live_calls = LiveCalls::start(&config, &core, &pool);
        let hidden = live_calls.as_ref().map(LiveCalls::target);
        let soon = || Instant::now() + Duration::from_secs(1);
        let (mut sinks, dispatch) = match SinkSet::start(config, &core, &pool, hidden) {
            Ok(started) => started,
            Err(error) => {
                live_calls.map(|live_calls| live_calls.stop(soon()));
                interfaces.forget_completions("rustbridge");
                return Err(said(&*error));
            }
        };
        let handler = Arc::new(Handler::new(&dispatch, custom));
        // Last of all: from here on events come.
        let subscription = match Subscription::bind(Self::NAME, core.all, Arc::clone(&handler)) {
            Ok(subscription) => subscription,
            Err(error) => {
                live_calls.map(|live_calls| live_calls.stop(soon()));
                sinks.stop(soon());
                interfaces.forget_completions("rustbridge");
                return Err(said(&error));
            }
        };
        if let Some(live_calls) = &mut live_calls {
            live_calls.tell(&handler, &core);
        }
        log::info!(
            target: "mod_rustbridge::notice",
            "mod_rustbridge {} is loaded as node {:?} with {} sinks",
            env!("CARGO_PKG_VERSION"),
            sinks.node(),
            sinks.len(),
        );
        let module = Arc::new(Module {
            since: SystemTime::now(),
            started: Instant::now(),
            pool,
            handler,
            subscription: Mutex::new(Some(subscription)),
            sinks: Mutex::new(sinks),
            live_calls: Mutex::new(live_calls),
            interfaces,
            missing: Arc::default(),
            check: Mutex::default(),
            calls: AtomicUsize::new(0),
            core,
            _panics: panics,
        });
        module.look_for_interfaces();
        *lock(&SLOT) = Some(module);
        Ok(())
    }

    fn shutdown() -> bool {
        let Some(module) = lock(&SLOT).take() else { return true };
        module.shutdown()
    }
}

impl Module {
    /// Ends everything within `shutdown-timeout-ms`. False when a thread would not end.
    fn shutdown(&self) -> bool {
        let timeout = lock(&self.sinks).shutdown_timeout();
        let deadline = Instant::now() + timeout;
        self.handler.catch_up(Instant::now() + CATCH_UP.min(timeout / 4));
        // No callback runs once this returns.
        drop(lock(&self.subscription).take());
        self.handler.close();
        self.interfaces.forget_completions("rustbridge");
        if let Some((interrupt, check)) = lock(&self.check).take() {
            interrupt.raise();
            check.finish(deadline);
        }
        while self.calls.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            // A command ends without telling anyone; it is looked for.
            std::thread::park_timeout(Duration::from_millis(2));
        }
        let delivered_by = deadline.checked_sub(JOIN_TIME.min(timeout / 2)).unwrap_or(deadline);
        // Before the sinks: what these give up at their end must not count as told.
        let live_calls = lock(&self.live_calls).take();
        let table_ended = live_calls.is_none_or(|live_calls| live_calls.stop(delivered_by));
        let all_ended = lock(&self.sinks).stop(delivered_by) && table_ended;
        if !all_ended {
            log::error!(
                "mod_rustbridge could not end all its threads within {} ms and stays in memory; \
                 a larger shutdown-timeout-ms gives them more time",
                timeout.as_millis()
            );
        }
        all_ended
    }

    /// Looks, once the core has had the time to register them, whether our API command and
    /// application are there. 1.11's interface allowlist may refuse them while load succeeds.
    fn look_for_interfaces(&self) {
        let Ok(interrupt) = Interrupt::new() else { return };
        let interrupt = Arc::new(interrupt);
        let missing = Arc::clone(&self.missing);
        let stop = Arc::clone(&interrupt);
        let check = Background::start("rb-interfaces", thread::settle, move || {
            let find = || Missing::find(command::APIS, command::APPS);
            // Registration follows load within milliseconds; a loaded machine gets some more.
            for _ in 0..20 {
                if stop.wait(Duration::from_millis(100)) {
                    return;
                }
                if find().is_empty() {
                    return;
                }
            }
            let found = find();
            for entry in &found {
                let name = entry.name.to_string_lossy();
                log::warn!(
                    "FreeSWITCH did not register the {} {name}: add <allow \
                     name=\"mod_rustbridge.{name}.{}\"/> to <interface-allowlist> in \
                     switch.conf.xml. Events are forwarded all the same",
                    entry.kind,
                    entry.kind,
                );
            }
            *lock(&missing) = found;
        });
        if let Ok(check) = check {
            *lock(&self.check) = Some((interrupt, check));
        }
    }
}
