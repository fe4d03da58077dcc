// SPDX-License-Identifier: MIT
//! The host (`tests/host`) as a [`Switch`].

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::switch::{CONFIGURATION, Running, Switch, escape};
use super::{Folder, host_folder, module, wait_until};

/// How the host is started.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// "1.10" or "1.11": whose event numbers and manners.
    pub core: &'static str,
    pub dispatch_threads: u32,
    /// How long unload waits for running API calls; the core waits ten seconds.
    pub busy_seconds: u32,
    /// The library, and the name to load it by.
    pub library: Option<PathBuf>,
    pub module_name: &'static str,
    /// A program, with its arguments, that runs the host.
    pub under: Vec<String>,
    /// A file of eight bytes: by how many seconds its wall clock is ahead (`tests/host/clock.c`).
    pub clock: Option<PathBuf>,
    /// A file of sixteen bytes: which allocations of the module fail, and how many did (`tests/host/scarce.c`).
    pub scarce: Option<PathBuf>,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            core: "1.11",
            dispatch_threads: 1,
            busy_seconds: 10,
            library: None,
            module_name: "mod_rustbridge",
            under: Vec::new(),
            clock: None,
            scarce: None,
        }
    }
}

#[derive(Debug)]
struct Console {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Console {
    /// Sends one command; gives its text and its status line.
    fn ask(&mut self, command: &str) -> (String, String) {
        assert!(!command.contains('\n'), "a command is one line: {command}");
        writeln!(self.input, "{command}").expect("the host takes commands");
        self.answer()
    }

    fn answer(&mut self) -> (String, String) {
        let (mut pieces, mut status) = (Vec::new(), String::new());
        loop {
            let mut line = Vec::new();
            let read = self.output.read_until(b'\n', &mut line).expect("the host answers");
            assert!(read > 0, "the host ended in the middle of an answer");
            let line = String::from_utf8_lossy(&line[..line.len() - 1]).into_owned();
            match line.split_at_checked(1) {
                Some(("|", text)) => pieces.push(text.to_owned()),
                Some((".", "")) => return (pieces.join("\n"), status),
                _ => status = line,
            }
        }
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    console: Arc<Mutex<Console>>,
}

/// A running host with folders of its own.
#[derive(Debug)]
pub struct Host {
    folder: Folder,
    options: HostOptions,
    process: Option<Process>,
}

impl Host {
    /// Starts a host with this configuration of the module, which is not loaded yet.
    pub fn new(configuration: &str) -> Self {
        Self::with(configuration, HostOptions::default())
    }

    pub fn with(configuration: &str, options: HostOptions) -> Self {
        let folder = Folder::new("host");
        folder.write(&format!("conf/{CONFIGURATION}"), configuration);
        for name in ["mod", "log", "run", "db"] {
            fs::create_dir_all(folder.join(name)).expect("a folder can be made");
        }
        let library = options.library.clone().unwrap_or_else(module);
        assert!(
            library.is_file(),
            "no library at {}: build it first (make build)",
            library.display()
        );
        symlink(&library, folder.join(format!("mod/{}.so", options.module_name)))
            .expect("a link can be made");
        let mut host = Self { folder, options, process: None };
        host.start();
        host
    }

    /// The host's own probe module instead of the library under test.
    pub fn probe(configuration: &str) -> Self {
        let library = Some(host_folder().join("mod_probe.so"));
        Self::with(
            configuration,
            HostOptions { library, module_name: "mod_probe", ..HostOptions::default() },
        )
    }

    /// The probe, loaded.
    pub fn loaded_probe(configuration: &str) -> Self {
        let mut host = Self::probe(configuration);
        host.load().expect("the probe loads");
        host
    }

    /// The folder that holds conf, mod, log, run and db.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn console(&self) -> Arc<Mutex<Console>> {
        let process = self.process.as_ref().expect("the host has been started");
        Arc::clone(&process.console)
    }

    /// Any command of the host: its text, and its status line.
    pub fn command(&mut self, line: &str) -> (String, String) {
        self.console().lock().unwrap().ask(line)
    }

    fn expect_ok(&mut self, line: &str) -> Result<(), String> {
        let (text, status) = self.command(line);
        if status.starts_with("+OK") { Ok(()) } else { Err(format!("{text}{status}")) }
    }

    /// Figures of the host itself: `delivered`, `queued`, `bindings`, `rss_kb`, `allocs`.
    pub fn figures(&mut self) -> BTreeMap<String, f64> {
        super::switch::numbers(&self.command("stat").1)
    }

    /// Delivers events on a thread whose every system call traps; gives how many handlers made, and which.
    pub fn system_calls(&mut self, count: u32) -> (u64, String) {
        let (text, status) = self.command(&format!("syscalls n={count}"));
        let calls = status.split_whitespace().find_map(|word| word.strip_prefix("syscalls="));
        (calls.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{status}")), text)
    }

    fn later(&self, line: &str) -> Box<dyn Running> {
        let console = self.console();
        let (_, status) = console.lock().unwrap().ask(&format!("& {line}"));
        let job = status.strip_prefix("+OK job=").unwrap_or_else(|| panic!("{status}")).to_owned();
        Box::new(Job { console, job })
    }

    fn generator_answer((text, status): &(String, String)) -> String {
        format!("{text}{status}")
    }
}

struct Job {
    console: Arc<Mutex<Console>>,
    job: String,
}

impl Running for Job {
    fn finish(self: Box<Self>) -> String {
        let answer = self.console.lock().unwrap().ask(&format!("wait {}", self.job));
        // A generator's status line holds its figures; an API call's says nothing but that it ran.
        if answer.1.starts_with("+OK status=") { answer.0 } else { Host::generator_answer(&answer) }
    }
}

impl Switch for Host {
    fn name(&self) -> String {
        format!("host like {}", self.options.core)
    }

    fn configure(&mut self, xml: &str) {
        self.folder.write(&format!("conf/{CONFIGURATION}"), xml);
    }

    fn log_folder(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn load(&mut self) -> Result<(), String> {
        self.expect_ok(&format!("load {}", self.options.module_name))
    }

    fn unload(&mut self) -> Result<(), String> {
        self.expect_ok(&format!("unload {}", self.options.module_name))
    }

    fn reload(&mut self) -> Result<(), String> {
        self.expect_ok(&format!("reload {}", self.options.module_name))
    }

    fn reload_xml(&mut self) -> Result<(), String> {
        self.expect_ok("reloadxml")
    }

    fn api(&mut self, line: &str) -> String {
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        self.command(&format!("api {name} {}", escape(arguments.as_bytes()))).0
    }

    fn api_later(&mut self, line: &str) -> Box<dyn Running> {
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        self.later(&format!("api {name} {}", escape(arguments.as_bytes())))
    }

    fn app(
        &mut self,
        name: &str,
        data: &str,
        variables: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        let pairs = variables
            .iter()
            .map(|(n, v)| format!("{}={}", escape(n.as_bytes()), escape(v.as_bytes())));
        self.command(&format!("vars {}", pairs.collect::<Vec<_>>().join(" ")));
        let (text, status) = self.command(&format!("app {name} {}", escape(data.as_bytes())));
        assert!(status.starts_with("+OK"), "{name}: {status}");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn complete(&mut self, line: &str) -> Vec<String> {
        self.command(&format!("complete {}", escape(line.as_bytes())))
            .0
            .lines()
            .map(Into::into)
            .collect()
    }

    fn generate(&mut self, line: &str) -> String {
        Self::generator_answer(&self.command(line))
    }

    fn generate_later(&mut self, line: &str) -> Box<dyn Running> {
        self.later(line)
    }

    fn pid(&self) -> i32 {
        let process = self.process.as_ref().expect("the host has been started");
        i32::try_from(process.child.id()).expect("a process number fits")
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log/host.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.child.kill().expect("a child can be killed");
            process.child.wait().expect("a child can be waited for");
        }
    }

    fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        drop(writeln!(process.console.lock().unwrap().input, "quit"));
        wait_until(Duration::from_secs(30), "the host to end", || {
            matches!(process.child.try_wait(), Ok(Some(_)))
        });
        let status = process.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the host ended with {status}; its log:\n{}", self.log());
    }

    fn start(&mut self) {
        assert!(self.process.is_none(), "the host is running");
        let folder = |name: &str| self.folder.join(name);
        let errors =
            fs::OpenOptions::new().create(true).append(true).open(folder("log/stderr.log"));
        let program = host_folder().join("rustbridge-host");
        let mut command = match self.options.under.split_first() {
            None => Command::new(program),
            Some((under, arguments)) => {
                let mut command = Command::new(under);
                command.args(arguments).arg(program);
                command
            }
        };
        if let Some(file) = &self.options.clock {
            command.env("LD_PRELOAD", host_folder().join("clock.so")).env("RUSTBRIDGE_CLOCK", file);
        }
        if let Some(file) = &self.options.scarce {
            command.env("RUSTBRIDGE_SCARCE", file);
        }
        let mut child = command
            .args([Path::new("--conf"), &folder("conf"), Path::new("--mod"), &folder("mod")])
            .args([Path::new("--log"), &folder("log"), Path::new("--run"), &folder("run")])
            .args([
                Path::new("--db"),
                &folder("db"),
                Path::new("--log-file"),
                &folder("log/host.log"),
            ])
            .args(["--core", self.options.core])
            .args(["--dispatch", &self.options.dispatch_threads.to_string()])
            .args(["--busy-seconds", &self.options.busy_seconds.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.expect("the log folder can be written"))
            .spawn()
            .expect("the host can be started");
        let input = child.stdin.take().expect("stdin is piped");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut console = Console { input, output };
        let (_, greeting) = console.answer();
        assert!(greeting.starts_with("+OK rustbridge-host"), "{greeting}");
        self.process = Some(Process { child, console: Arc::new(Mutex::new(console)) });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}
