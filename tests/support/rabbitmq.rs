// SPDX-License-Identifier: MIT
//! A real RabbitMQ of the test's own: one node from the installed package, with its own name, ports, folders, cookie and
//! port mapper, so that it disturbs and is disturbed by nobody.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::certificates::{Authority, Certificate};
use super::process::Leashed;
use super::skips::Missing;
use super::{Folder, free_port, in_path, wait_until};

/// What a node offers beyond the plain listener. `with_tls` and `configuration` are for a few tests only.
#[derive(Debug, Default)]
pub struct RabbitMqOptions {
    /// The server's certificate and whom it trusts; a client must show a certificate when `require_client` is set.
    pub tls: Option<(PathBuf, Certificate)>,
    pub require_client: bool,
    /// More lines for `rabbitmq.conf`.
    pub configuration: String,
    /// More lines for `advanced` start arguments: plugins to enable.
    pub plugins: Vec<&'static str>,
}

/// A running node. The user guest/guest may do everything in the virtual host `/`.
#[derive(Debug)]
pub struct RabbitMq {
    folder: Folder,
    programs: PathBuf,
    port: u16,
    tls_port: u16,
    mapper_port: u16,
    distribution_port: u16,
    mapper: Option<Leashed>,
    server: Option<Leashed>,
}

fn find() -> Result<PathBuf, Missing> {
    // The package's own scripts; those in /usr/sbin change the user first.
    let debian = PathBuf::from("/usr/lib/rabbitmq/bin");
    if debian.join("rabbitmq-server").is_file() {
        return Ok(debian);
    }
    let found = in_path("rabbitmq-server").and_then(|file| Some(file.parent()?.to_path_buf()));
    found.ok_or_else(|| {
        Missing::new("RabbitMQ is not installed", "apt-get install rabbitmq-server, or make setup")
    })
}

impl RabbitMq {
    /// Starts a node, or says what is missing.
    pub fn start() -> Result<Self, Missing> {
        Self::with(&RabbitMqOptions::default())
    }

    pub fn with(options: &RabbitMqOptions) -> Result<Self, Missing> {
        let programs = find()?;
        let folder = Folder::new("rabbitmq");
        let mut node = Self {
            folder,
            programs,
            port: free_port(),
            tls_port: free_port(),
            mapper_port: free_port(),
            distribution_port: free_port(),
            mapper: None,
            server: None,
        };
        let mut lines = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nloopback_users.guest = false\nlog.file.level = info\n{}\n",
            node.port, options.configuration
        );
        if let Some((trusted, own)) = &options.tls {
            write!(
                lines,
                "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\nssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = {}\n",
                node.tls_port,
                trusted.display(),
                own.file.display(),
                own.key.display(),
                options.require_client
            )
            .unwrap();
        }
        node.folder.write("rabbitmq.conf", lines);
        node.folder.write("plugins", format!("[{}].\n", options.plugins.join(",")));
        node.start_again();
        Ok(node)
    }

    /// A node with a TLS listener for localhost and 127.0.0.1, signed by `authority`.
    pub fn with_tls(authority: &Authority, require_client: bool) -> Result<Self, Missing> {
        find()?;
        let own = authority.sign("rabbitmq", &["DNS:localhost", "IP:127.0.0.1"], 2);
        Self::with(&RabbitMqOptions {
            tls: Some((authority.certificate(), own)),
            require_client,
            ..RabbitMqOptions::default()
        })
    }

    /// Its process group.
    pub fn group(&self) -> i32 {
        self.server.as_ref().expect("the node has been started").group()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    fn node(&self) -> String {
        format!("rustbridge{}@localhost", self.port)
    }

    fn command(&self, program: PathBuf) -> Command {
        let path = |name: &str| self.folder.join(name);
        let mut command = Command::new(program);
        command
            .env("HOME", self.folder.path())
            .env("RABBITMQ_BASE", self.folder.path())
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
            .env("RABBITMQ_CONF_ENV_FILE", path("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env("ERL_EPMD_PORT", self.mapper_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_CRASH_DUMP", path("erl_crash.dump"))
            .env_remove("RABBITMQ_NODE_PORT")
            .current_dir(self.folder.path());
        command
    }

    /// Starts the node after `kill` or `stop`: same ports, same data.
    pub fn start_again(&mut self) {
        self.begin();
        self.wait_ready();
    }

    /// Starts without waiting until it takes connections.
    pub fn begin(&mut self) {
        // A port mapper of our own in the foreground: the usual one would be a daemon that outlives us.
        if self.mapper.is_none() {
            let mut mapper = Command::new("epmd");
            mapper.args(["-port", &self.mapper_port.to_string(), "-address", "127.0.0.1"]);
            self.mapper = Some(Leashed::start(&mapper, &self.folder.join("epmd.out")));
        }
        let command = self.command(self.programs.join("rabbitmq-server"));
        self.server = Some(Leashed::start(&command, &self.folder.join("out")));
    }

    pub fn wait_ready(&mut self) {
        let out = self.folder.join("out");
        let server = self.server.as_mut().expect("the node has been started");
        wait_until(Duration::from_secs(90), "RabbitMQ to be up", || {
            let said = fs::read_to_string(&out).unwrap_or_default();
            assert!(server.is_running(), "RabbitMQ ended at its start:\n{said}");
            said.contains("completed with")
        });
    }

    fn server(&mut self) -> &mut Leashed {
        self.server.as_mut().expect("the node has been started")
    }

    /// Orderly: connections get a `connection.close`.
    pub fn stop(&mut self) {
        self.ctl(&["stop", &self.folder.join("pid").display().to_string()]);
        self.server().wait(Duration::from_secs(30));
        self.server = None;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server().kill();
        self.server = None;
    }

    /// Connections stay open and nothing answers, until `resume`.
    pub fn pause(&mut self) {
        self.server().pause();
    }

    pub fn resume(&mut self) {
        self.server().resume();
    }

    /// Its name and version.
    pub fn version(&self) -> String {
        format!("RabbitMQ {}", self.ctl(&["version"]).trim())
    }

    /// `rabbitmqctl`: its output; panics when it fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = self.command(self.programs.join("rabbitmqctl"));
        let done = command.arg("-q").args(arguments).output().expect("rabbitmqctl can be started");
        let (out, errors) =
            (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "rabbitmqctl {arguments:?}: {out}{errors}");
        out.into_owned()
    }

    /// Has the log of what is declared written out, by the small program of Erlang's own where there is one: `rabbitmqctl`
    /// takes seconds to start.
    pub fn sync_log(&self) {
        let Some(program) = in_path("erl_call") else {
            self.ctl(&["eval", "mnesia:sync_log()."]);
            return;
        };
        let mut command = self.command(program);
        command.args(["-sname", &self.node(), "-a", "mnesia sync_log []"]);
        let done = command.output().expect("erl_call can be started");
        let said = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said == "ok", "erl_call: {said}{errors}");
    }

    /// A user with all rights in a virtual host, which is made when it is missing.
    pub fn add_user(&self, name: &str, password: &str, vhost: &str) {
        let known = self.ctl(&["list_vhosts"]);
        if !known.lines().any(|line| line.trim() == vhost) {
            self.ctl(&["add_vhost", vhost]);
        }
        self.ctl(&["add_user", name, password]);
        self.ctl(&["set_permissions", "-p", vhost, name, ".*", ".*", ".*"]);
    }

    /// With an alarm on, the node sends `connection.blocked` and takes no more messages.
    pub fn set_memory_alarm(&self, on: bool) {
        self.ctl(&["set_vm_memory_high_watermark", if on { "0.0000001" } else { "0.4" }]);
    }

    /// Closes every connection with these words.
    pub fn close_connections(&self, why: &str) {
        self.ctl(&["close_all_connections", why]);
    }

    pub fn log(&self) -> String {
        let files = fs::read_dir(self.folder.join("log")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // Before its folder goes.
        self.server = None;
        self.mapper = None;
    }
}
