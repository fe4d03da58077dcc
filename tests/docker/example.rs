// SPDX-License-Identifier: MIT
//! `examples/docker/compose.yaml` as `make up` starts it, and by hand: all of it healthy, events at both brokers, and Prometheus
//! with what the dashboard asks it for. Something else stands where Grafana does, which the tests cannot have.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::commands;
use crate::engine::{ask, command, docker, inspect};
use crate::ground::{Ground, ground_apart};
use crate::refusals::Crafted;
use crate::support::{Folder, free_port, in_path, root, skips, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(180);

fn example(name: &str) -> String {
    std::fs::read_to_string(root().join("examples/docker").join(name)).expect("it can be read")
}

/// One at a time: they are the same project.
static TURN: Mutex<()> = Mutex::new(());

/// Tells of its health only where it finds what `compose.yaml` gives it.
const GRAFANA: &str = r#"
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
with open(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]) as file: assert len(file.read()) == 48
for name in "provisioning/datasources/rustbridge.yaml", "provisioning/dashboards/rustbridge.yaml", "dashboards/rustbridge.json":
    open("/etc/grafana/" + name).close()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
http.server.HTTPServer(("", 3000), Handler).serve_forever()
"#;
const WGET: &str = "#!/usr/bin/python3
import sys, urllib.request
assert sys.argv[1] == '-qO-'
urllib.request.urlopen(sys.argv[2])
";

/// The example as a Compose project of its own, on ports that nobody else has.
struct Project<'g> {
    ground: &'g Ground,
    ports: [(&'static str, String); 4],
    grafana: Crafted,
}

impl<'g> Project<'g> {
    fn new(ground: &'g Ground) -> Self {
        let names = ["RABBITMQ_PORT", "SIP_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"];
        let files = [("/grafana.py", GRAFANA.as_bytes()), ("/usr/local/bin/wget", WGET.as_bytes())];
        let words = ["python3", "/grafana.py"];
        let grafana = Crafted::running(ground, &ground.run.client, "grafana", &files, &words);
        Self { ground, ports: names.map(|name| (name, free_port().to_string())), grafana }
    }

    fn environment(&self, command: &mut Command) {
        command.env("COMPOSE_PROJECT_NAME", &self.ground.run.id).env("DOCKER_PULL", "no");
        command.env("GRAFANA_IMAGE", &self.grafana.0).env_remove("MODULE_IMAGE");
        command.envs(self.ports.iter().map(|(name, port)| (name, port)));
    }

    fn make(&self, word: &str) -> String {
        let mut make = commands::make(&[word]);
        self.environment(&mut make);
        let done = make.output().expect("make can be started");
        let said = commands::success(&format!("make {word}"), &done);
        println!("{}", said.trim());
        said
    }

    /// Of `docker ps` and `docker volume ls`.
    fn filter(&self) -> String {
        format!("label=com.docker.compose.project={}", self.ground.run.id)
    }

    fn container(&self, service: &str) -> String {
        let service = format!("label=com.docker.compose.service={service}");
        let list = ["ps", "-aq", "--filter", &self.filter(), "--filter", &service];
        docker(&list).trim().to_owned()
    }

    /// Whatever FreeSWITCH tells of itself when it starts is at both brokers.
    fn delivers(&self) {
        let switch = self.container("freeswitch");
        wait_until(LIMIT, "both brokers to have taken events", || {
            let status = ["rustbridge-start", "fs_cli", "-x", "rustbridge status json"];
            let Ok(status) = ask(&[&["exec", &switch][..], &status].concat()) else { return false };
            let Ok(status) = serde_json::from_str::<Value>(&status) else { return false };
            let sinks = status["sinks"].as_array().expect("the status has sinks");
            sinks.len() == 2 && sinks.iter().all(|sink| sink["delivered"].as_u64() > Some(0))
        });
    }

    /// No service is root, can become it or may do what it may, and each comes again when it ends.
    fn is_modest(&self) {
        for service in ["freeswitch", "rabbitmq", "kafka", "prometheus", "grafana"] {
            let container = self.container(service);
            let status = docker(&["exec", &container, "cat", "/proc/1/status"]);
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
                line.split_whitespace().next().unwrap_or("").to_owned()
            };
            assert_ne!(field("Uid:"), "0", "{service}: {status}");
            assert_eq!(field("CapBnd:"), "0000000000000000", "{service}: {status}");
            assert_eq!(field("NoNewPrivs:"), "1", "{service}: {status}");
            let template = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}";
            let limits = inspect(&container, template);
            let limits: Vec<&str> = limits.split(' ').collect();
            assert!(
                limits[0] == "unless-stopped" && !limits.contains(&"0"),
                "{service}: {limits:?}"
            );
        }
    }

    /// What Prometheus answers to a request of its API, where that succeeds.
    fn prometheus(&self, request: &str) -> Result<Value, String> {
        let port = self.ports[2].1.parse().expect("a port is a number");
        let answer = get(port, request).map_err(|error| error.to_string())?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let value: Value = serde_json::from_str(body).map_err(|_| answer.clone())?;
        if value["status"] == "success" {
            Ok(value["data"].clone())
        } else {
            Err(value.to_string())
        }
    }
}

/// Whatever became of the test: the next is the same project, and a broker in its volumes knows the password of this one.
impl Drop for Project<'_> {
    fn drop(&mut self) {
        for (list, remove) in
            [(["ps", "-a"], ["rm", "-f", "-v"]), (["volume", "ls"], ["volume", "rm", "-f"])]
        {
            let found = ask(&[&list[..], &["-q", "--filter", &self.filter()]].concat());
            for one in found.unwrap_or_default().lines() {
                drop(ask(&[&remove[..], &[one]].concat()));
            }
        }
    }
}

/// HTTP 1.0, where an answer ends with its connection.
fn get(port: u16, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {request} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes everything");
        }
        encoded
    })
}

/// The dashboard's panels.
fn panels() -> Vec<Value> {
    let dashboard: Value =
        serde_json::from_str(&example("grafana/rustbridge.json")).expect("the dashboard is JSON");
    dashboard["panels"].as_array().expect("it has panels").clone()
}

fn queries() -> Vec<String> {
    let panels = panels();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

/// How Docker Compose is called here.
fn compose(test: &str) -> Option<String> {
    if ask(&["compose", "version"]).is_ok() {
        return Some(format!("{} compose", command(&[]).get_program().display()));
    }
    let found = in_path("docker-compose").map(|_| "docker-compose".to_owned());
    if found.is_none() {
        let name = format!("docker::{test}");
        skips::note(&name, "no Docker Compose", "apt-get install docker-compose");
    }
    found
}

/// The commands of README's section By hand, in a copy of the folder. The first is the same as in its first section.
#[test]
fn the_example_comes_up_by_hand() {
    let test = "the_example_comes_up_by_hand";
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(ground) = ground_apart(test) else { return };
    let Some(compose) = compose(test) else { return };
    let readme = example("README.md");
    let section = readme.split("\n## By hand\n").nth(1).expect("README has a section By hand");
    let block = section.split("```").nth(1).expect("it has a block of commands");
    let commands = block.strip_prefix("sh\nmake docker-build\n").expect("it begins with the image");
    let (commands, last) = (commands.replace("docker compose", &compose), "up -d\n");
    let folder = Folder::new("by-hand");
    let copy = "mkdir -p examples && cp -R \"$TREE/examples/docker\" examples/ && rm -rf examples/docker/secrets\n";
    let project = Project::new(&ground);
    let run = |script: String| {
        let mut shell = Command::new("sh");
        shell.args(["-euc", &script]).current_dir(folder.path()).env("TREE", root());
        project.environment(&mut shell);
        let run = &ground.run;
        shell.env("RABBITMQ_IMAGE", &run.rabbitmq).env("KAFKA_IMAGE", &run.kafka);
        shell.env("PROMETHEUS_IMAGE", &run.prometheus);
        commands::success(&script, &shell.output().expect("a shell can be started"))
    };
    let without = commands.lines().last().expect("it has commands").replace("up -d", "down -v");
    assert!(commands.ends_with(last), "{commands}");
    run(format!("{copy}{commands}"));
    project.delivers();
    wait_until(LIMIT, "Grafana to be healthy", || {
        inspect(&project.container("grafana"), "{{.State.Health.Status}}") == "healthy"
    });
    project.is_modest();
    let java = docker(&["exec", &project.container("kafka"), "cat", "/proc/1/cmdline"]);
    assert!(java.contains("-Xms256m\0-Xmx512m"), "{java}");
    let image = inspect(&project.container("freeswitch"), "{{.Config.Image}}");
    assert_eq!(image, "freeswitch-rustbridge");
    run(without);
    assert_eq!(docker(&["ps", "-aq", "--filter", &project.filter()]), "");
}

#[test]
fn the_example_comes_up_healthy_with_metrics_and_goes_away() {
    let test = "the_example_comes_up_healthy_with_metrics_and_goes_away";
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(ground) = ground_apart(test) else { return };
    if compose(test).is_none() {
        return;
    }
    let project = Project::new(&ground);
    let said = project.make("up");
    assert!(said.contains("grafana is healthy"), "{said}");
    assert!(said.contains(&format!("on http://127.0.0.1:{} (user admin", project.ports[3].1)));
    project.delivers();
    let rabbitmq = project.container("rabbitmq");
    let exchanges = docker(&["exec", &rabbitmq, "rabbitmqctl", "-q", "list_exchanges", "name"]);
    assert!(exchanges.contains("rustbridge.events"), "{exchanges}");
    let kafka = !said.contains("will not hear of Kafka");
    if !kafka {
        skips::note(
            &format!("docker::{test}, Kafka"),
            "the JMX exporter is not here",
            "make setup",
        );
    }
    is_scraped(&project, kafka);
    gives_what_the_dashboard_asks_for(&project, kafka);
    project.make("down");
    assert_eq!(docker(&["ps", "-aq", "--filter", &project.filter()]), "");
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", &project.filter()]), "");
}

/// Every target of `prometheus.yml` is up.
fn is_scraped(project: &Project<'_>, kafka: bool) {
    let configuration = example("prometheus.yml");
    let jobs = configuration.lines().filter_map(|line| line.trim().strip_prefix("- job_name: "));
    let jobs: BTreeSet<&str> = jobs.filter(|job| kafka || *job != "kafka").collect();
    assert!(!jobs.is_empty(), "{configuration}");
    let mut found = Value::Null;
    wait_until(LIMIT, "Prometheus to scrape", || {
        let Ok(targets) = project.prometheus("/api/v1/targets?state=active") else { return false };
        found = targets["activeTargets"].clone();
        let up = found.as_array().into_iter().flatten().filter(|one| one["health"] == "up");
        let up: BTreeSet<&str> = up.filter_map(|one| one["labels"]["job"].as_str()).collect();
        up.is_superset(&jobs)
    });
    println!("Prometheus scrapes {jobs:?}");
}

/// Each query of the dashboard is one that Prometheus understands, and finds something.
fn gives_what_the_dashboard_asks_for(project: &Project<'_>, kafka: bool) {
    let queries = queries();
    assert!(queries.len() >= 10, "{queries:?}");
    for query in &queries {
        let ask = || project.prometheus(&format!("/api/v1/query?query={}", percent(query)));
        // A rate takes two looks at what it is of.
        let result = wait_for(LIMIT, &format!("an answer to {query}"), || {
            let answer = ask().unwrap_or_else(|error| panic!("{query}: {error}"));
            let result = answer["result"].as_array().expect("a query has results").clone();
            (!result.is_empty() || (!kafka && query.contains("kafka_"))).then_some(result)
        });
        let first = result.first().map(|first| first["value"][1].to_string());
        println!("{query}: {} of it, {}", result.len(), first.unwrap_or_default());
    }
}

/// Grafana itself is in no package that the tests could run, so this is what can be known of its files without it: they name
/// each other as they must, and no panel lies on another.
#[test]
fn the_files_for_grafana_fit_together() {
    let Some(_ground) = ground_apart("the_files_for_grafana_fit_together") else { return };
    let (source, provider) =
        (example("grafana/datasource.yaml"), example("grafana/dashboards.yaml"));
    let compose = example("compose.yaml");
    let value = |text: &str, key: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {key} in {text}")).trim().to_owned()
    };
    assert_eq!(value(&source, "url"), "http://prometheus:9090");
    let folder = value(&provider, "path");
    for mount in [
        "./grafana/datasource.yaml:/etc/grafana/provisioning/datasources/".to_owned(),
        "./grafana/dashboards.yaml:/etc/grafana/provisioning/dashboards/".to_owned(),
        format!("./grafana/rustbridge.json:{folder}/"),
    ] {
        assert!(compose.contains(&mount), "compose.yaml does not mount {mount}");
    }
    let uid = value(&source, "uid");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels() {
        assert_eq!(panel["datasource"]["uid"], uid.as_str(), "{panel}");
        assert!(ids.insert(panel["id"].to_string()), "two panels with one id: {panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().expect("a panel has a place");
        assert!(place("x") + place("w") <= 24, "wider than the dashboard: {panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "one panel on another: {panel}");
            }
        }
    }
    println!("{} panels, {} queries", ids.len(), queries().len());
}
