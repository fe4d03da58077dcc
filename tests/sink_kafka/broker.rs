// SPDX-License-Identifier: MIT
//! A private Apache Kafka of one node, made of the artifacts in `KAFKA_LIBS`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything that a broker has to do may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A broker of the test's own. Ends with it, however the test ends.
pub(crate) struct Broker {
    dir: PathBuf,
    port: u16,
    extra: String,
    running: Option<Running>,
}

struct Running {
    /// A shell that kills the broker when its standard input ends, as it does with our process.
    guard: Child,
    lifeline: ChildStdin,
}

/// A message as `kcat`, which shares no code with the sink, has read it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) partition: i64,
    pub(crate) key: String,
    pub(crate) payload: String,
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: Vec<(String, String)>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Whether a broker can be had here. Says what is missing when not.
pub(crate) fn available() -> bool {
    let missing = if libs().is_none() {
        "Apache Kafka's jars: set KAFKA_LIBS to a folder with org.apache.kafka:kafka_2.13 and \
         kafka-tools 4.1"
    } else if !runs("java", "-version") {
        "java 17"
    } else if !runs("kcat", "-V") {
        "kcat"
    } else {
        return true;
    };
    eprintln!("SKIPPED: no Kafka broker for this test, missing: {missing}");
    false
}

fn runs(program: &str, argument: &str) -> bool {
    let silent =
        Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    silent.is_ok_and(|status| status.success())
}

/// `KAFKA_LIBS`, or where `make setup` puts them.
fn libs() -> Option<PathBuf> {
    let given = std::env::var_os("KAFKA_LIBS").map(PathBuf::from);
    let cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        Some(cache.or_else(home)?.join("rustbridge-kafka/4.1.0"))
    };
    given.or_else(cache).filter(|libs| libs.is_dir())
}

fn java() -> Command {
    let mut java = Command::new("java");
    java.arg("-cp").arg(format!("{}/*", libs().unwrap().display()));
    java
}

/// The first of four ports that nobody has, below those that the system gives to clients.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 120).unwrap() * 8;
    loop {
        let port = 23_000 + (start + NEXT.fetch_add(4, Ordering::Relaxed)) % 960;
        if (port..port + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
}

impl Broker {
    /// A broker that is not running yet. `extra` goes to its configuration.
    pub(crate) fn prepare(name: &str, extra: &str) -> Self {
        let port = free_ports();
        let dir = std::env::temp_dir().join(format!("kafka-{name}-{}-{port}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        certificates(&dir);
        Self { dir, port, extra: extra.to_owned(), running: None }
    }

    /// A broker that takes connections.
    pub(crate) fn start(name: &str, extra: &str) -> Self {
        let mut broker = Self::prepare(name, extra);
        broker.run();
        broker
    }

    /// Where clients connect without login and TLS.
    pub(crate) fn plaintext(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where they need the user `fs1` with the password `right`.
    pub(crate) fn sasl(&self) -> String {
        format!("127.0.0.1:{}", self.port + 2)
    }

    /// Where the broker shows a certificate for `localhost`.
    pub(crate) fn tls(&self) -> String {
        format!("localhost:{}", self.port + 3)
    }

    /// The authority that signed it.
    pub(crate) fn ca(&self) -> String {
        self.dir.join("ca.pem").display().to_string()
    }

    /// One that did not.
    pub(crate) fn other_ca(&self) -> String {
        self.dir.join("other.pem").display().to_string()
    }

    /// Lists of revoked certificates: `none` is empty, `revoked` has the broker's, `other` is of the authority that did not
    /// sign it.
    pub(crate) fn list(&self, name: &str) -> PathBuf {
        self.dir.join(name).with_extension("crl")
    }

    /// Starts it, also again.
    pub(crate) fn run(&mut self) {
        let properties = self.dir.join("server.properties");
        let (port, dir, extra) = (self.port, self.dir.display(), &self.extra);
        let [controller, sasl, tls] = [port + 1, port + 2, port + 3];
        let jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required \
                    username=\"fs1\" password=\"right\" user_fs1=\"right\";";
        fs::write(
            &properties,
            format!(
                "process.roles=broker,controller\n\
                 node.id=1\n\
                 controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},\
                 SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://127.0.0.1:{tls}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port},\
                 SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://localhost:{tls}\n\
                 controller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,\
                 SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL\n\
                 sasl.enabled.mechanisms=PLAIN\n\
                 listener.name.sasl_plaintext.plain.sasl.jaas.config={jaas}\n\
                 ssl.keystore.type=PEM\n\
                 ssl.keystore.location={dir}/broker.pem\n\
                 log.dirs={dir}/data\n\
                 num.partitions=3\n\
                 offsets.topic.replication.factor=1\n\
                 transaction.state.log.replication.factor=1\n\
                 transaction.state.log.min.isr=1\n\
                 {extra}\n"
            ),
        )
        .unwrap();
        if !self.dir.join("data").exists() {
            let format = java()
                .args(["kafka.tools.StorageTool", "format", "--standalone"])
                .args(["-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
                .arg(&properties)
                .output()
                .unwrap();
            assert!(format.status.success(), "{}", String::from_utf8_lossy(&format.stderr));
        }
        let mut guard = Command::new("sh")
            .args(["-c", "\"$@\" & echo $! >\"$PIDFILE\"; read -r _; kill -9 $!; wait $!", "sh"])
            .args(["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", libs().unwrap().display()))
            .arg("kafka.Kafka")
            .arg(&properties)
            .env("PIDFILE", self.dir.join("pid"))
            .stdin(Stdio::piped())
            .stdout(fs::File::create(self.dir.join("out")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lifeline = guard.stdin.take().unwrap();
        self.running = Some(Running { guard, lifeline });
        let address = self.plaintext();
        wait_for("the broker to answer", || {
            let answers = Command::new("kcat").args(["-L", "-m", "2", "-b", &address]).output();
            answers.is_ok_and(|answer| answer.status.success())
        });
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(Running { mut guard, lifeline }) = self.running.take() {
            drop(lifeline);
            guard.wait().unwrap();
        }
    }

    /// Creates a topic with one of the broker's own tools.
    pub(crate) fn create_topic(&self, topic: &str, config: &[&str]) {
        let mut command = java();
        command
            .args(["org.apache.kafka.tools.TopicCommand", "--create", "--partitions", "3"])
            .args(["--bootstrap-server", &self.plaintext(), "--topic", topic]);
        for pair in config {
            command.args(["--config", pair]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Deletes a topic in the same way.
    pub(crate) fn delete_topic(&self, topic: &str) {
        let output = java()
            .args(["org.apache.kafka.tools.TopicCommand", "--delete"])
            .args(["--bootstrap-server", &self.plaintext(), "--topic", topic])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Everything in `topic`, in the order of each partition.
    pub(crate) fn read(&self, topic: &str) -> Vec<Received> {
        let output = Command::new("kcat")
            .args(["-C", "-q", "-e", "-J", "-o", "beginning", "-t", topic, "-b", &self.plaintext()])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(received).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

fn received(line: &str) -> Received {
    let message: Value = serde_json::from_str(line).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let headers = message["headers"].as_array().cloned().unwrap_or_default();
    Received {
        partition: message["partition"].as_i64().unwrap(),
        key: text(&message["key"]),
        payload: text(&message["payload"]),
        timestamp_ms: message["ts"].as_i64().unwrap(),
        headers: headers.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
    }
}

/// An authority, a broker certificate of it, and another authority.
fn certificates(dir: &Path) {
    let script = r#"
        set -e; cd "$1"
        authority() {
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" \
                -keyout "$1.key" -out "$1.pem"
        }
        authority ca; authority other
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout broker.key -out broker.csr
        echo "subjectAltName=DNS:localhost,IP:127.0.0.1" >ext
        openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile ext -out broker.crt
        cat broker.key broker.crt ca.pem >broker.pem
        printf '[ca]\ndefault_ca=this\n[this]\ndatabase=index\ncertificate=ca.pem\nprivate_key=ca.key
            default_md=sha256\ndefault_crl_days=2\n' >ca.cnf
        : >index
        list() { openssl ca -config ca.cnf -gencrl -out "$@"; }
        list none.crl
        list other.crl -cert other.pem -keyfile other.key
        openssl ca -config ca.cnf -revoke broker.crt
        list revoked.crl
    "#;
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for a condition, and fails when it does not come true in [`PATIENCE`].
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}
