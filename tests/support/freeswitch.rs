// SPDX-License-Identifier: MIT
//! A real FreeSWITCH as a [`Switch`]: an installed one, started with folders and ports of the test's own.
//!
//! The test commands it over its event socket, which the module itself never needs. The generator runs inside it as the
//! module `mod_generate`, so that it gets the very events that the host gets.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use serde_json::{Map, Value};

use super::process::Leashed;
use super::skips::Missing;
use super::switch::{CONFIGURATION, Running, Switch};
use super::{Folder, free_port, host_folder, in_path, module, wait_for};

/// An installed FreeSWITCH.
#[derive(Debug, Clone)]
pub struct Installation {
    pub program: PathBuf,
    pub modules: PathBuf,
}

fn pkg_config(variable: &str) -> Option<PathBuf> {
    let asked =
        Command::new("pkg-config").args(["--variable", variable, "freeswitch"]).output().ok()?;
    let text = String::from_utf8(asked.stdout).ok()?;
    (!text.trim().is_empty()).then(|| text.trim().into())
}

impl Installation {
    /// Below a prefix: `bin/freeswitch`, and modules in `lib/freeswitch/mod` or `mod`.
    pub fn at(prefix: &Path) -> Option<Self> {
        let program = prefix.join("bin/freeswitch");
        let folders = [prefix.join("lib/freeswitch/mod"), prefix.join("mod")];
        let modules =
            folders.into_iter().find(|folder| folder.join("mod_event_socket.so").is_file())?;
        program.is_file().then_some(Self { program, modules })
    }

    /// Every one there is: all of `FREESWITCH_PREFIX`, which may name several, separated by colons; else what pkg-config
    /// or the PATH knows.
    pub fn all() -> Result<Vec<Self>, Missing> {
        if let Some(prefixes) = env::var_os("FREESWITCH_PREFIX").filter(|value| !value.is_empty()) {
            let found = env::split_paths(&prefixes).map(|prefix| {
                Self::at(&prefix).ok_or_else(|| {
                    let what = format!(
                        "FREESWITCH_PREFIX names {}, where no FreeSWITCH is",
                        prefix.display()
                    );
                    Missing::new(
                        what,
                        "name an installation that has bin/freeswitch and mod_event_socket",
                    )
                })
            });
            return found.collect();
        }
        let from_pkg_config = || Self::at(&pkg_config("prefix")?);
        let from_path = || {
            let program = fs::canonicalize(in_path("freeswitch")?).ok()?;
            let prefix = program.parent()?.parent()?;
            Self::at(prefix).or_else(|| {
                let modules =
                    pkg_config("modulesdir").unwrap_or_else(|| prefix.join("lib/freeswitch/mod"));
                modules.is_dir().then_some(Self { program: program.clone(), modules })
            })
        };
        from_pkg_config().or_else(from_path).map(|found| vec![found]).ok_or_else(|| {
            Missing::new(
                "no FreeSWITCH is installed",
                "install one and set FREESWITCH_PREFIX to its prefix",
            )
        })
    }

    /// The first of them.
    pub fn find() -> Result<Self, Missing> {
        Ok(Self::all()?.remove(0))
    }
}

/// A connection to the event socket that only sends `api` and reads its answer.
#[derive(Debug)]
struct EventSocket(BufReader<TcpStream>);

impl EventSocket {
    fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        // As long as the longest call lasts, which is a generator's.
        stream.set_read_timeout(Some(Duration::from_secs(1800)))?;
        let mut socket = Self(BufReader::new(stream));
        socket.packet()?;
        socket.send("auth ClueCon")?;
        Ok(socket)
    }

    fn packet(&mut self) -> std::io::Result<String> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(size) = line.strip_prefix("Content-Length:") {
                length = size.trim().parse().unwrap_or(0);
            }
            if line == "\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn send(&mut self, line: &str) -> std::io::Result<String> {
        write!(self.0.get_mut(), "{line}\n\n")?;
        self.packet()
    }
}

/// Every event since the subscription, as the core itself serializes it for its event socket.
#[derive(Debug)]
pub struct CoreEvents {
    stream: TcpStream,
    events: Arc<Mutex<Vec<Map<String, Value>>>>,
    reader: Option<JoinHandle<()>>,
}

impl CoreEvents {
    fn subscribe(port: u16) -> Self {
        let mut socket = EventSocket::connect(port).expect("the event socket takes a connection");
        socket.send("event json ALL").expect("the event socket takes a subscription");
        let stream = socket.0.get_ref().try_clone().expect("a socket can be cloned");
        let events = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&events);
        let read = move || {
            while let Ok(packet) = socket.packet() {
                if packet.starts_with('{') {
                    kept.lock().unwrap().push(super::recorded::parse(packet.as_bytes()));
                }
            }
        };
        let reader = Builder::new().name("events".into()).spawn(read);
        Self { stream, events, reader: Some(reader.expect("a thread can be started")) }
    }

    /// What has come so far.
    pub fn so_far(&self) -> Vec<Map<String, Value>> {
        self.events.lock().unwrap().clone()
    }
}

impl Drop for CoreEvents {
    fn drop(&mut self) {
        drop(self.stream.shutdown(std::net::Shutdown::Both));
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// A running FreeSWITCH of the test's own.
#[derive(Debug)]
pub struct FreeSwitch {
    folder: Folder,
    installation: Installation,
    version: String,
    port: u16,
    sip_port: u16,
    server: Option<Leashed>,
    socket: Option<Arc<Mutex<EventSocket>>>,
}

/// What its tests use, as far as an installation has it. The event socket is last: when it answers, all are loaded.
const MODULES: &[&str] = &[
    "mod_console",
    "mod_logfile",
    "mod_commands",
    "mod_dptools",
    "mod_dialplan_xml",
    "mod_loopback",
    "mod_tone_stream",
    "mod_sndfile",
    "mod_native_file",
    "mod_hash",
    "mod_db",
    "mod_conference",
    "mod_callcenter",
    "mod_fifo",
    "mod_sofia",
    "mod_generate",
    "mod_event_socket",
];

/// Whole configuration files as name, inside.
fn configuration_files(port: u16, sip_port: u16, modules: &str) -> Vec<(&'static str, String)> {
    let sofia = [
        ("sip-ip", "127.0.0.1".to_owned()),
        ("rtp-ip", "127.0.0.1".into()),
        ("sip-port", sip_port.to_string()),
        ("context", "test".into()),
        ("dialplan", "XML".into()),
        ("auth-calls", "false".into()),
        // As usual: without one, RTP is sent when some has come.
        ("rtp-timer-name", "soft".into()),
        ("inbound-codec-prefs", "PCMU,PCMA".into()),
        ("outbound-codec-prefs", "PCMU,PCMA".into()),
    ];
    let sofia: String = sofia.iter().map(|(name, value)| param(name, value)).collect();
    let socket = [
        param("listen-ip", "127.0.0.1"),
        param("listen-port", &port.to_string()),
        param("password", "ClueCon"),
    ];
    let core = [
        param("max-sessions", "5000"),
        param("sessions-per-second", "2000"),
        param("loglevel", "debug"),
    ];
    let queue = [
        param("strategy", "longest-idle-agent"),
        param("moh-sound", "silence"),
        param("time-base-score", "system"),
        param("max-wait-time", "0"),
    ];
    vec![
        ("modules", format!("<modules>{modules}</modules>")),
        ("event_socket", format!("<settings>{}</settings>", socket.concat())),
        ("switch", format!("<settings>{}</settings>", core.concat())),
        (
            "console",
            format!(
                "<mappings><map name=\"all\" value=\"debug\"/></mappings><settings>{}</settings>",
                param("colorize", "false")
            ),
        ),
        (
            "logfile",
            format!(
                "<settings/><profiles><profile name=\"default\"><settings>{}{}</settings><mappings>\
                 <map name=\"all\" value=\"console,debug,info,notice,warning,err,crit,alert\"/></mappings></profile></profiles>",
                param("logfile", "$${log_dir}/freeswitch.log"),
                param("rollover", "0")
            ),
        ),
        (
            "conference",
            format!(
                "<caller-controls/><profiles><profile name=\"default\">{}</profile></profiles>",
                param("rate", "8000")
            ),
        ),
        (
            "callcenter",
            format!(
                "<settings/><queues><queue name=\"support@default\">{}</queue></queues><agents/><tiers/>",
                queue.concat()
            ),
        ),
        ("fifo", "<settings/><fifos/>".into()),
        ("hash", "<remotes/>".into()),
        ("db", "<settings/>".into()),
        ("loopback", "<settings/>".into()),
        (
            "sofia",
            format!(
                "<global_settings/><profiles><profile name=\"internal\"><settings>{sofia}</settings></profile></profiles>"
            ),
        ),
    ]
}

fn param(name: &str, value: &str) -> String {
    format!("<param name=\"{name}\" value=\"{value}\"/>")
}

/// The dialplan of the test calls, by destination.
const DIALPLAN: &[(&str, &str)] = &[
    ("echo", "answer,echo"),
    ("tone", "answer,playback tone_stream://%(1000;0;440),hangup"),
    ("music", "answer,endless_playback tone_stream://%(1000;0;440)"),
    ("short", "answer,hangup"),
    ("busy", "hangup USER_BUSY"),
    ("conf", "answer,conference rb@default"),
    ("park", "answer,park"),
    ("queue", "answer,callcenter support@default"),
    ("fifo", "answer,fifo line@default in"),
    (".*", "answer,sleep 1000,hangup"),
];

fn document() -> String {
    let extensions = DIALPLAN.iter().map(|(destination, actions)| {
        let actions = actions.split(',').map(|action| {
            let (application, data) = action.split_once(' ').unwrap_or((action, ""));
            format!("<action application=\"{application}\" data=\"{}\"/>", data.replace(';', ","))
        });
        format!(
            "<extension name=\"{destination}\"><condition field=\"destination_number\" expression=\"^{destination}$\">{}\
             </condition></extension>\n",
            actions.collect::<String>()
        )
    });
    // The preprocessor works line by line: its directive, and the XML declaration, stand alone on theirs.
    format!(
        "<?xml version=\"1.0\"?>\n<document type=\"freeswitch/xml\">\n<section name=\"configuration\">\n\
         <X-PRE-PROCESS cmd=\"include\" data=\"autoload_configs/*.xml\"/>\n</section>\n\
         <section name=\"dialplan\"><context name=\"test\">\n{}</context></section>\n\
         <section name=\"directory\"><domain name=\"127.0.0.1\"/></section>\n<section name=\"languages\"/>\n\
         <section name=\"phrases\"/>\n</document>\n",
        extensions.collect::<String>()
    )
}

impl FreeSwitch {
    /// Starts one with this configuration of the module, which is not loaded yet.
    pub fn new(configuration: &str) -> Result<Self, Missing> {
        Ok(Self::with(Installation::find()?, configuration, &[]))
    }

    /// `more` are files of the configuration folder to write before the start: name, text.
    pub fn with(installation: Installation, configuration: &str, more: &[(&str, &str)]) -> Self {
        let folder = Folder::new("freeswitch");
        for name in ["conf", "log", "run", "db", "mod"] {
            fs::create_dir_all(folder.join(name)).expect("a folder can be made");
        }
        let installed = fs::read_dir(&installation.modules).into_iter().flatten().flatten();
        for file in
            installed.filter(|file| file.path().extension().is_some_and(|ending| ending == "so"))
        {
            let name = file.file_name();
            if name != "mod_rustbridge.so" && name != "mod_generate.so" {
                symlink(file.path(), folder.join("mod").join(name)).expect("a link can be made");
            }
        }
        symlink(host_folder().join("mod_generate.so"), folder.join("mod/mod_generate.so"))
            .expect("a link can be made");
        let library = module();
        if library.is_file() {
            symlink(library, folder.join("mod/mod_rustbridge.so")).expect("a link can be made");
        }
        let (port, sip_port) = (free_port(), free_port());
        let there = MODULES.iter().filter(|name| folder.join(format!("mod/{name}.so")).exists());
        let modules: String = there.map(|name| format!("<load module=\"{name}\"/>")).collect();
        for (name, inside) in configuration_files(port, sip_port, &modules) {
            let text = format!("<configuration name=\"{name}.conf\">{inside}</configuration>\n");
            folder.write(&format!("conf/autoload_configs/{name}.conf.xml"), text);
        }
        folder.write("conf/freeswitch.xml", document());
        folder.write(&format!("conf/{CONFIGURATION}"), configuration);
        for (name, text) in more {
            folder.write(&format!("conf/{name}"), text);
        }
        let version = String::new();
        let mut switch =
            Self { folder, installation, version, port, sip_port, server: None, socket: None };
        switch.start();
        let said = switch.api("version");
        said.split_whitespace().nth(2).unwrap_or_default().clone_into(&mut switch.version);
        switch
    }

    /// Begins to collect all events, by a way that has nothing to do with the module.
    pub fn core_events(&self) -> CoreEvents {
        CoreEvents::subscribe(self.port)
    }

    pub fn sip_port(&self) -> u16 {
        self.sip_port
    }

    /// The folder that holds conf, mod, log, run and db.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn later(&self, line: String) -> Box<dyn Running> {
        let port = self.port;
        let run = move || {
            let mut socket =
                EventSocket::connect(port).expect("the event socket takes a connection");
            socket.send(&format!("api {line}")).unwrap_or_else(|error| format!("-ERR {error}"))
        };
        Box::new(Call(
            Builder::new().name("api".into()).spawn(run).expect("a thread can be started"),
        ))
    }

    /// The last line of what `load`, `unload` and `reload` print decides.
    fn expect_ok(&mut self, line: &str) -> Result<(), String> {
        let answer = self.api(line);
        if answer.contains("-ERR") { Err(answer) } else { Ok(()) }
    }
}

struct Call(JoinHandle<String>);

impl Running for Call {
    fn finish(self: Box<Self>) -> String {
        self.0.join().expect("the call's thread ends well")
    }
}

impl Switch for FreeSwitch {
    fn name(&self) -> String {
        format!("FreeSWITCH {}", self.version)
    }

    fn configure(&mut self, xml: &str) {
        self.folder.write(&format!("conf/{CONFIGURATION}"), xml);
    }

    fn log_folder(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn load(&mut self) -> Result<(), String> {
        self.expect_ok("load mod_rustbridge")
    }

    fn unload(&mut self) -> Result<(), String> {
        self.expect_ok("unload mod_rustbridge")
    }

    fn reload(&mut self) -> Result<(), String> {
        self.expect_ok("reload mod_rustbridge")
    }

    fn reload_xml(&mut self) -> Result<(), String> {
        self.expect_ok("reloadxml")
    }

    fn api(&mut self, line: &str) -> String {
        let socket = Arc::clone(self.socket.as_ref().expect("FreeSWITCH has been started"));
        let mut socket = socket.lock().unwrap();
        socket.send(&format!("api {line}")).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn api_later(&mut self, line: &str) -> Box<dyn Running> {
        self.later(line.into())
    }

    /// On a channel to nowhere, which is parked afterwards, read and hung up.
    fn app(
        &mut self,
        name: &str,
        data: &str,
        variables: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let uuid = format!("7c7b5e50-0000-4000-8000-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed));
        let pairs: String =
            variables.iter().map(|(name, value)| format!(",{name}='{value}'")).collect();
        let application = if data.is_empty() { name.to_owned() } else { format!("{name}:{data}") };
        let answer = self.api(&format!(
            "originate {{origination_uuid={uuid}{pairs}}}null/test 'm:^:{application}^set:test_done=yes^park' inline"
        ));
        assert!(answer.starts_with("+OK"), "{name}: {answer}");
        wait_for(Duration::from_secs(30), "the application to end", || {
            let done = self.api(&format!("uuid_getvar {uuid} test_done"));
            (done.trim() == "yes").then_some(())
        });
        let dump: Value = serde_json::from_str(&self.api(&format!("uuid_dump {uuid} json")))
            .expect("a dump is JSON");
        self.api(&format!("uuid_kill {uuid}"));
        let members = dump.as_object().into_iter().flatten();
        let variables = members.filter_map(|(name, value)| {
            Some((name.strip_prefix("variable_")?.to_owned(), value.as_str()?.to_owned()))
        });
        variables.collect()
    }

    fn complete(&mut self, line: &str) -> Vec<String> {
        let answer = self.api(&format!("console_complete {line}"));
        let pieces = answer.split('[').skip(1).filter_map(|piece| piece.split_once(']'));
        let mut words: Vec<String> = pieces.map(|(word, _)| word.trim().to_owned()).collect();
        words.sort();
        words
    }

    fn generate(&mut self, line: &str) -> String {
        self.api(&format!("generate {line}"))
    }

    fn generate_later(&mut self, line: &str) -> Box<dyn Running> {
        self.later(format!("generate {line}"))
    }

    fn pid(&self) -> i32 {
        self.server.as_ref().expect("FreeSWITCH has been started").group()
    }

    fn log(&self) -> String {
        // The console's lines sit in a buffer for a while; the log file's do not.
        let file = self.folder.join("log/freeswitch.log");
        let bytes = fs::read(file)
            .or_else(|_| fs::read(self.folder.join("log/console")))
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn kill(&mut self) {
        self.socket = None;
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    fn stop(&mut self) {
        // It may end before it has answered.
        if let Some(socket) = self.socket.take() {
            drop(socket.lock().unwrap().send("api fsctl shutdown now"));
        }
        if let Some(mut server) = self.server.take() {
            server.wait(Duration::from_secs(60));
        }
    }

    fn start(&mut self) {
        assert!(self.server.is_none(), "FreeSWITCH is running");
        let folder = |name: &str| self.folder.join(name);
        let mut command = Command::new(&self.installation.program);
        command.args(["-nf", "-nonat"]);
        for (option, name) in
            // The installation's own storage has the spools and the live calls of whatever runs there.
            [
                ("-conf", "conf"),
                ("-log", "log"),
                ("-db", "db"),
                ("-run", "run"),
                ("-mod", "mod"),
                ("-storage", "storage"),
            ]
        {
            command.arg(option).arg(folder(name));
        }
        command.arg("-temp").arg(folder("run"));
        let mut server = Leashed::start(&command, &folder("log/console"));
        let port = self.port;
        let log = folder("log/console");
        let socket = wait_for(Duration::from_secs(60), "FreeSWITCH to be up", || {
            assert!(
                server.is_running(),
                "FreeSWITCH ended: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            let mut socket = EventSocket::connect(port).ok()?;
            socket.send("api status").ok()?.contains("is ready").then_some(socket)
        });
        self.server = Some(server);
        self.socket = Some(Arc::new(Mutex::new(socket)));
    }
}

impl Drop for FreeSwitch {
    fn drop(&mut self) {
        self.socket = None;
        self.server = None;
    }
}
