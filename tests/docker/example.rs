// SPDX-License-Identifier: MIT
//! `examples/docker/compose.yaml` as `make up` starts it: all of it healthy, events at both brokers, and Prometheus with what
//! the dashboard asks it for.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::commands;
use crate::engine::{ask, docker};
use crate::ground::{Ground, ground_apart};
use crate::support::{free_port, in_path, root, skips, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(180);

fn example(name: &str) -> String {
    std::fs::read_to_string(root().join("examples/docker").join(name)).expect("it can be read")
}

/// The example as a Compose project of its own, on ports that nobody else has.
struct Project<'g> {
    ground: &'g Ground,
    ports: [(&'static str, String); 4],
}

impl<'g> Project<'g> {
    fn new(ground: &'g Ground) -> Self {
        let names = ["RABBITMQ_PORT", "SIP_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"];
        Self { ground, ports: names.map(|name| (name, free_port().to_string())) }
    }

    fn make(&self, word: &str) -> String {
        let mut make = commands::make(&[word]);
        make.env("COMPOSE_PROJECT_NAME", &self.ground.run.id).env("DOCKER_PULL", "no");
        make.envs(self.ports.iter().map(|(name, port)| (name, port)));
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

#[test]
fn the_example_comes_up_healthy_with_metrics_and_goes_away() {
    let test = "the_example_comes_up_healthy_with_metrics_and_goes_away";
    let Some(ground) = ground_apart(test) else { return };
    if ask(&["compose", "version"]).is_err() && in_path("docker-compose").is_none() {
        skips::note(
            &format!("docker::{test}"),
            "no Docker Compose",
            "apt-get install docker-compose",
        );
        return;
    }
    let project = Project::new(&ground);
    let said = project.make("up");
    let switch = project.container("freeswitch");
    wait_until(LIMIT, "both brokers to have taken events", || {
        let status = ["rustbridge-start", "fs_cli", "-x", "rustbridge status json"];
        let status = docker(&[&["exec", &switch][..], &status].concat());
        let status: Value = serde_json::from_str(&status).expect("the status is JSON");
        let sinks = status["sinks"].as_array().expect("the status has sinks");
        sinks.len() == 2 && sinks.iter().all(|sink| sink["delivered"].as_u64() > Some(0))
    });
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
