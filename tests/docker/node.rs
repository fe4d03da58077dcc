// SPDX-License-Identifier: MIT
//! FreeSWITCH with the module in a container, as a [`Switch`]: commanded by `fs_cli` from another container.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::engine::{ask, docker, inspect, logs};
use crate::ground::Ground;
use crate::shell::Shell;
use crate::support::switch::{Running, Switch};
use crate::support::{Folder, wait_for};

/// Where the tests' image keeps the module's configuration.
const CONFIGURATION: &str = "/test/conf/autoload_configs/rustbridge.conf.xml";

/// How long a FreeSWITCH may take to be up.
const UP: Duration = Duration::from_secs(60);

/// How long a command may take.
const ANSWER: Duration = Duration::from_secs(330);

/// How long `docker stop` leaves it.
pub const GRACE_SECONDS: u64 = 30;

/// A container; it goes with this.
pub struct Node<'a> {
    ground: &'a Ground,
    /// The container's name.
    pub name: String,
    /// Its name on the network.
    pub alias: String,
    /// Where `fs_cli` runs.
    cli: Shell,
}

/// The module's configuration with these sinks.
pub fn configuration(node: &str, sinks: &[String]) -> String {
    format!(
        "<configuration name=\"rustbridge.conf\">\n<settings>\
         <param name=\"node-name\" value=\"{node}\"/>\
         <param name=\"storage-dir\" value=\"/var/lib/rustbridge\"/>\
         <param name=\"shutdown-timeout-ms\" value=\"20000\"/></settings>\n\
         <sinks>\n{}</sinks>\n</configuration>\n",
        sinks.concat()
    )
}

impl<'a> Node<'a> {
    /// Starts one of the first FreeSWITCH image and waits until it answers. Its modules.conf.xml loads the module. On the network
    /// its name begins with `alias`, and is nobody else's: other tests have nodes too.
    pub fn start(ground: &'a Ground, alias: &str, sinks: &[String]) -> Self {
        Self::with(ground, alias, sinks, &ground.run.test[0], &[])
    }

    /// The same of an image and with options of `docker create`.
    pub fn with(
        ground: &'a Ground,
        alias: &str,
        sinks: &[String],
        image: &str,
        options: &[&str],
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let alias = format!("{alias}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut node = Self { ground, name: ground.run.name(&alias), alias, cli: ground.cli() };
        let text = configuration(&node.alias, sinks);
        ground.start(&node.name, image, &node.alias, options, &[(CONFIGURATION, &text)], &[]);
        node.wait_up();
        node
    }

    pub fn wait_up(&mut self) {
        let mut looked = Instant::now();
        wait_for(UP, &format!("{} to be up", self.alias), || {
            let answer = self.ask("status");
            if answer.is_err() && looked.elapsed() > Duration::from_secs(1) {
                assert!(self.is_running(), "{} ended:\n{}", self.alias, self.log());
                looked = Instant::now();
            }
            answer.ok()?.contains("is ready").then_some(())
        });
    }

    /// `fs_cli -x` in another container.
    fn ask(&mut self, line: &str) -> Result<String, String> {
        let words = ["rustbridge-start", "fs_cli", "-H", &self.alias, "-p", "ClueCon"];
        self.cli.run(&[&words[..], &["-t", "300000", "-x", line]].concat(), ANSWER)
    }

    pub fn is_running(&self) -> bool {
        inspect(&self.name, "{{.State.Running}}") == "true"
    }

    /// `docker stop`: SIGTERM, and SIGKILL when the grace period is over. What it ended with; 137 is SIGKILL.
    pub fn stop_gracefully(&mut self) -> i32 {
        docker(&["stop", "-t", &GRACE_SECONDS.to_string(), &self.name]);
        inspect(&self.name, "{{.State.ExitCode}}").parse().expect("an exit code is a number")
    }

    fn later(&self, line: &str) -> Box<dyn Running> {
        let mut command = self.ground.fs_cli(&self.alias, line);
        let run = move || {
            let done = command.output().expect("docker can be started");
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        Box::new(Call(
            Builder::new().name("fs_cli".into()).spawn(run).expect("a thread can be started"),
        ))
    }

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

impl Switch for Node<'_> {
    fn name(&self) -> String {
        format!("{} in {}", self.alias, inspect(&self.name, "{{.Config.Image}}"))
    }

    fn configure(&mut self, xml: &str) {
        let folder = Folder::new("docker");
        let file = folder.write("rustbridge.conf.xml", xml);
        docker(&["cp", file.to_str().unwrap(), &format!("{}:{CONFIGURATION}", self.name)]);
    }

    fn log_folder(&self) -> PathBuf {
        "/var/log/freeswitch".into()
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
        self.ask(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn api_later(&mut self, line: &str) -> Box<dyn Running> {
        self.later(line)
    }

    fn app(&mut self, name: &str, data: &str, _: &[(&str, &str)]) -> BTreeMap<String, String> {
        panic!("{name} {data}: applications are tested on the host and in an installed FreeSWITCH");
    }

    fn complete(&mut self, line: &str) -> Vec<String> {
        panic!("{line}: completion is tested on the host and in an installed FreeSWITCH");
    }

    fn generate(&mut self, line: &str) -> String {
        self.api(&format!("generate {line}"))
    }

    fn generate_later(&mut self, line: &str) -> Box<dyn Running> {
        self.later(&format!("generate {line}"))
    }

    fn pid(&self) -> i32 {
        inspect(&self.name, "{{.State.Pid}}").parse().expect("a pid is a number")
    }

    fn log(&self) -> String {
        logs(&self.name)
    }

    fn kill(&mut self) {
        docker(&["kill", &self.name]);
    }

    fn stop(&mut self) {
        self.stop_gracefully();
    }

    fn start(&mut self) {
        docker(&["start", &self.name]);
        self.wait_up();
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let dated = log.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
            let lines: Vec<&str> = dated.collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- the last of the log of {}\n{}", self.alias, tail.join("\n"));
        }
        drop(ask(&["rm", "-f", "-v", &self.name]));
    }
}
