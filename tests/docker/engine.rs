// SPDX-License-Identifier: MIT
//! The docker client, as `tests/docker/test.sh` chose it, and the label by which that script removes what a run started.

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::skips;

/// What `test.sh` tells a run.
#[derive(Debug, Clone)]
pub struct Run {
    /// The value of the label `rustbridge.run`, and the beginning of every name.
    pub id: String,
    /// FreeSWITCH images, the same with the module, and those with what tests need; in the same order.
    pub freeswitch: Vec<String>,
    pub module: Vec<String>,
    pub test: Vec<String>,
    /// The module and the tests' image on the next Debian, where there is one.
    pub next: Vec<String>,
    pub rabbitmq: String,
    pub kafka: String,
    pub client: String,
    pub prometheus: String,
    /// Debian, and the image that the module was compiled in.
    pub base: String,
    pub builder: String,
}

impl Run {
    /// None, and a note of it, when this is not a run of `make docker-test`.
    pub fn find() -> Option<Self> {
        let Ok(id) = env::var("RUSTBRIDGE_DOCKER_RUN") else {
            // The same line for each test, of which the list keeps one.
            skips::note("tests/docker", "needs images and a Docker engine", "make docker-test");
            return None;
        };
        let one = |name: &str| {
            let name = format!("RUSTBRIDGE_DOCKER_{name}");
            env::var(&name).unwrap_or_else(|_| panic!("{name} is set by tests/docker/test.sh"))
        };
        let list = |name: &str| one(name).split_whitespace().map(Into::into).collect();
        Some(Self {
            id,
            freeswitch: list("FREESWITCH"),
            module: list("MODULE"),
            test: list("TEST"),
            next: list("NEXT"),
            rabbitmq: one("RABBITMQ"),
            kafka: one("KAFKA"),
            client: one("CLIENT"),
            prometheus: one("PROMETHEUS"),
            base: one("BASE"),
            builder: one("BUILDER"),
        })
    }

    /// Debian's name of `base`.
    pub fn release(&self) -> String {
        self.base.rsplit(':').next().unwrap().trim_end_matches("-slim").to_owned()
    }

    pub fn label(&self) -> String {
        format!("rustbridge.run={}", self.id)
    }

    /// A name that nothing else has.
    pub fn name(&self, what: &str) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        format!("{}-{what}-{}", self.id, NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The docker client with these arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("DOCKER").unwrap_or_else(|| "docker".into()));
    command.args(arguments);
    command
}

/// Runs it: what it printed, or what it complained of.
pub fn ask(arguments: &[&str]) -> Result<String, String> {
    let done = command(arguments).output().expect("docker can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() {
        Ok(text(&done.stdout))
    } else {
        Err(format!("docker {}: {}{}", arguments.join(" "), text(&done.stdout), text(&done.stderr)))
    }
}

/// The same where only success will do.
pub fn docker(arguments: &[&str]) -> String {
    ask(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Everything a container has written, standard output and error.
pub fn logs(container: &str) -> String {
    let done = command(&["logs", container]).output().expect("docker can be started");
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

/// One field of `docker inspect`, as a template says it.
pub fn inspect(container: &str, template: &str) -> String {
    docker(&["inspect", "-f", template, container]).trim().to_owned()
}
