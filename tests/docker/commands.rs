// SPDX-License-Identifier: MIT
//! What README tells its reader to type, typed; and `make docker-test` when it is interrupted or finds no engine.

use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::engine::{docker, inspect};
use crate::ground::ground_apart;
use crate::support::{Folder, root, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(240);

/// `make` with these words in this tree, as if it were typed: nothing of a `make` that runs these tests gets into it.
pub fn make(words: &[&str]) -> Command {
    // Whoever is started in the background of a script ignores SIGINT; somebody at a terminal does not.
    let mut make = Command::new("env");
    make.args(["--default-signal=INT", "make"]).args(words);
    make.current_dir(root()).stdin(Stdio::null());
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DOCKER_TEST"] {
        make.env_remove(name);
    }
    make
}

/// Everything it said, where it has to succeed.
pub fn success(what: &str, done: &Output) -> String {
    let said =
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{what}: {said}");
    said
}

/// The commands of README's section about Docker, without what is said of them.
fn readme() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).expect("README can be read");
    let section = text.split("\n## In Docker\n").nth(1).expect("README has a section In Docker");
    let block = section.split("```").nth(1).expect("it has a block of commands");
    let commands = block.lines().skip(1).map(|line| line.split('#').next().unwrap().trim());
    commands.filter(|command| !command.is_empty()).map(Into::into).collect()
}

#[test]
fn the_readme_has_three_commands_and_the_first_builds_the_module_into_an_image() {
    let test = "the_readme_has_three_commands_and_the_first_builds_the_module_into_an_image";
    let Some(ground) = ground_apart(test) else { return };
    // The second is run by the tests below, the third by the_example_comes_up_healthy_with_metrics_and_goes_away.
    let commands = readme();
    assert_eq!(commands.len(), 3, "{commands:?}");
    assert_eq!(commands[1..], ["make docker-test", "make up"]);
    let words: Vec<&str> = commands[0].split_whitespace().collect();
    let ["make", "docker-build", image] = words[..] else { panic!("{words:?}") };
    let (name, _) = image.split_once('=').expect("it names an image");
    assert_eq!(name, "FREESWITCH_IMAGE");
    let image = &ground.run.freeswitch[0];
    // What is made is noted elsewhere than what this run was made of, and nothing of the brokers is there.
    let folder = Folder::new("readme");
    // The same builder by another name, to see that a given one is taken.
    let builder = format!("rustbridge/given:{}", std::process::id());
    docker(&["tag", &ground.run.builder, &builder]);
    let done = make(&["docker-build", &format!("FREESWITCH_IMAGE={image}")])
        .env("CARGO_TARGET_DIR", folder.path())
        .env("XDG_CACHE_HOME", folder.path())
        .env("DEBIAN_RELEASE", ground.run.release())
        .env("BUILDER_IMAGE", &builder)
        .env("DOCKER_PULL", "no")
        .output()
        .expect("make can be started");
    docker(&["rmi", &builder]);
    let said = success(&commands[0], &done);
    let line = said.lines().find(|line| line.contains(&format!("{image} and ")));
    println!("{}", line.unwrap_or_else(|| panic!("no word of the image: {said}")));
    let read = |name: &str| std::fs::read_to_string(folder.join("docker").join(name));
    let images = read("images").expect("base.sh notes them");
    assert!(images.contains(&format!("BUILDER_IMAGE={builder}\n")), "{images}");
    assert!(read("brokers").is_err(), "a build needs no brokers");
    // What compose.yaml takes by hand.
    let module = &ground.run.module[0];
    assert_eq!(inspect("freeswitch-rustbridge", "{{.Id}}"), inspect(module, "{{.Id}}"));
}

/// What carries the label of a run: containers, networks, volumes.
fn left_of(run: &str) -> [usize; 3] {
    let label = format!("label=rustbridge.run={run}");
    [&["ps", "-aq"][..], &["network", "ls", "-q"], &["volume", "ls", "-q"]]
        .map(|list| docker(&[list, &["--filter", &label]].concat()).lines().count())
}

/// A run of `make docker-test` beside this one, in a process group of its own as a terminal would have it.
fn run_beside(run: &str, test: &str, output: Stdio) -> Child {
    let mut command = make(&["docker-test", &format!("DOCKER_TEST={test}")]);
    command.process_group(0).stdout(output).stderr(Stdio::null());
    command.env("DOCKER_TEST_RUN", run).env("DOCKER_PULL", "no");
    command.spawn().expect("make can be started")
}

#[test]
fn a_run_leaves_nothing_behind_when_it_ends() {
    let Some(ground) = ground_apart("a_run_leaves_nothing_behind_when_it_ends") else { return };
    let run = ground.run.name("whole");
    let test = "the_image_adds_little_and_tells_no_secret";
    let done = run_beside(&run, test, Stdio::piped()).wait_with_output().expect("make ends");
    let said = success("make docker-test", &done);
    assert!(said.contains(&format!("=== {test}")) && said.contains("1 passed"), "{said}");
    assert_eq!(left_of(&run), [0; 3]);
}

#[test]
fn a_run_leaves_nothing_behind_when_it_is_interrupted() {
    let Some(ground) = ground_apart("a_run_leaves_nothing_behind_when_it_is_interrupted") else {
        return;
    };
    for signal in ["INT", "TERM"] {
        let run = ground.run.name(signal);
        let mut child = run_beside(&run, "nothing_is_lost_when_kafka_is_killed", Stdio::null());
        wait_until(LIMIT, "the run to have a network and containers", || {
            assert!(child.try_wait().expect("a child can be asked").is_none(), "it ended early");
            let [containers, networks, _] = left_of(&run);
            containers > 2 && networks > 0
        });
        let before = left_of(&run);
        let group = format!("-{}", child.id());
        let sent = Command::new("kill").args(["-s", signal, "--", &group]).status();
        assert!(sent.expect("kill can be started").success());
        let status =
            wait_for(LIMIT, "make to end", || child.try_wait().expect("a child can be asked"));
        assert!(!status.success(), "an interrupted run is no success");
        // Make does not wait for what it started.
        wait_until(LIMIT, &format!("nothing to be left after SIG{signal}"), || {
            left_of(&run) == [0; 3]
        });
        println!("SIG{signal}: containers, networks, volumes were {before:?} and are {:?}", [0; 3]);
    }
}

/// `make test` includes these tests where they can run, and is not held up or failed where they can't.
#[test]
fn without_an_engine_the_tests_are_skipped_loudly_and_at_once() {
    let Some(_ground) = ground_apart("without_an_engine_the_tests_are_skipped_loudly_and_at_once")
    else {
        return;
    };
    let folder = Folder::new("no-engine");
    let silent = folder.join("silent.sock");
    // It takes connections and says nothing, as an engine that hangs does.
    let _silent = UnixListener::bind(&silent).expect("a socket can be made");
    let hosts = ["/nonexistent/docker.sock".into(), silent.display().to_string()];
    for host in hosts.map(|path| format!("unix://{path}")) {
        let done = make(&["docker-test-or-skip"])
            .env("CARGO_TARGET_DIR", folder.path())
            .env("DOCKER_HOST", &host)
            .output()
            .expect("make can be started");
        let said = success("make docker-test-or-skip", &done);
        let wanted = format!("no Docker engine answers at {host}; to get it: start it with");
        assert!(said.contains(&format!("SKIPPED tests/docker: {wanted}")), "{said}");
        let noted = std::fs::read_to_string(folder.join("test-skips.txt")).expect("it is noted");
        assert_eq!(noted.lines().count(), 1, "{noted}");
        assert!(noted.contains(&wanted), "{noted}");
        println!("{}", noted.trim());
    }
}
