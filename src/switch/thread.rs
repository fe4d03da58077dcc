// SPDX-License-Identifier: MIT
//! Making a thread of ours out of one that FreeSWITCH's scheduling was inherited by.

use std::mem::MaybeUninit;
use std::ptr;

use super::memory;

/// To be called first on every thread of ours.
///
/// A thread inherits the scheduling of the one that started it, which may be real-time
/// (`freeswitch -rp`, or a unit file): a publisher must never compete with media. And FreeSWITCH's
/// signal handlers are for FreeSWITCH's threads. And it may wait for memory, which they must not.
pub fn settle() {
    memory::be_patient();
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads one struct; thread 0 is the calling one. Lowering needs no privilege.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const normal) };
    // SAFETY: takes numbers only; on Linux the niceness of process 0 is the calling thread's own. The core runs at -10 unless it is
    // told not to, and raising it needs no privilege.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was initialised above; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut()) };
}
