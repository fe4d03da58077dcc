// SPDX-License-Identifier: MIT
//! What does not fit, is missing or is in the way, said in one line with the remedy: while building, not at the first load.

use std::fs::{Permissions, set_permissions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use crate::commands::make;
use crate::engine::{ask, command, docker, logs};
use crate::ground::{Ground, ground_apart};
use crate::support::{Folder, free_port, root, wait_until};

const LIMIT: Duration = Duration::from_secs(90);
const LIST: &str = "autoload_configs/modules.conf.xml";

/// Runs one of the scripts.
fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(root().join("tests/docker").join(name));
    command.args(arguments).envs(environment.iter().copied());
    command.output().expect("a script can be started")
}

/// It fails, and all it complains of is one line with these words in it.
fn refused(done: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        !done.status.success(),
        "it succeeded: {}{said}",
        String::from_utf8_lossy(&done.stdout)
    );
    assert_eq!(said.trim().lines().count(), 1, "more than a line: {said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    println!("{}", said.trim());
}

/// An image made of another by changing files; it goes with this.
pub struct Crafted(pub String);

impl Crafted {
    fn of(ground: &Ground, image: &str, what: &str, files: &[(&str, &[u8])]) -> Self {
        Self::running(ground, image, what, files, &["true"])
    }

    /// The same where it matters what a container of it runs.
    pub fn running(
        ground: &Ground,
        image: &str,
        what: &str,
        files: &[(&str, &[u8])],
        words: &[&str],
    ) -> Self {
        let name = Self::create(ground, image, what, words);
        let folder = Folder::new("crafted");
        for (path, bytes) in files {
            let file = folder.write("file", bytes);
            set_permissions(&file, Permissions::from_mode(0o755)).expect("it is ours");
            docker(&["cp", file.to_str().unwrap(), &format!("{name}:{path}")]);
        }
        Self::commit(ground, &name, what)
    }

    fn without(ground: &Ground, image: &str, what: &str, path: &str) -> Self {
        let name = Self::create(ground, image, what, &["rm", path]);
        docker(&["start", "-a", &name]);
        Self::commit(ground, &name, what)
    }

    fn create(ground: &Ground, image: &str, what: &str, words: &[&str]) -> String {
        let name = ground.run.name(what);
        let label = ground.run.label();
        docker(&[&["create", "--name", &name, "--label", &label, image][..], words].concat());
        name
    }

    fn commit(ground: &Ground, name: &str, what: &str) -> Self {
        let tag = format!("rustbridge/crafted:{what}-{}", std::process::id());
        let label = format!("LABEL {}", ground.run.label());
        docker(&["commit", "-c", &label, name, &tag]);
        docker(&["rm", "-f", "-v", name]);
        Self(tag)
    }

    fn build(&self) -> Output {
        script("build.sh", &["--only-check"], &[("FREESWITCH_IMAGE", &self.0)])
    }
}

impl Drop for Crafted {
    fn drop(&mut self) {
        drop(ask(&["rmi", "-f", &self.0]));
    }
}

#[test]
fn an_image_without_freeswitch_is_refused() {
    let Some(ground) = ground_apart("an_image_without_freeswitch_is_refused") else { return };
    let done = script("build.sh", &["--only-check"], &[("FREESWITCH_IMAGE", &ground.run.client)]);
    refused(&done, &["holds no FreeSWITCH", "name an image that has one in FREESWITCH_IMAGE"]);
    let done =
        script("build.sh", &["--only-check"], &[("FREESWITCH_IMAGE", "rustbridge/nowhere:0")]);
    refused(&done, &["no image rustbridge/nowhere:0", "FREESWITCH_IMAGE"]);
}

#[test]
fn an_image_of_another_architecture_is_refused() {
    let Some(ground) = ground_apart("an_image_of_another_architecture_is_refused") else { return };
    let (image, program) =
        (ground.run.freeswitch[0].clone(), ground.path_of(&ground.run.module[0], "FREESWITCH"));
    let mut bytes = ground.file_of(&image, &program);
    // e_machine of the ELF header: AArch64 is 183.
    bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
    let crafted = Crafted::of(&ground, &image, "machine", &[(&program, &bytes)]);
    refused(&crafted.build(), &["is for AArch64", "build with --platform"]);
}

#[test]
fn an_image_with_an_older_c_library_is_refused() {
    let Some(ground) = ground_apart("an_image_with_an_older_c_library_is_refused") else { return };
    let (image, path) = (ground.run.freeswitch[0].clone(), "/usr/lib/x86_64-linux-gnu/libc.so.6");
    let mut bytes = ground.file_of(&image, path);
    // No version beyond 2.29: 2.30 and later become 2.00 and later.
    let newer = b"GLIBC_2.3";
    for at in 0..bytes.len() - newer.len() {
        if bytes[at..].starts_with(newer) {
            bytes[at + newer.len() - 1] = b'0';
        }
    }
    let crafted = Crafted::of(&ground, &image, "libc", &[(path, &bytes)]);
    let remedy = "make docker-build BUILDER_IMAGE=";
    refused(&crafted.build(), &["has the C library 2.2", "needs 2.3", remedy]);
}

#[test]
fn a_builder_that_is_not_there_is_refused() {
    let Some(ground) = ground_apart("a_builder_that_is_not_there_is_refused") else { return };
    let (image, release) = (&ground.run.freeswitch[0], ground.run.release());
    let environment = [
        ("BUILDER_IMAGE", "rustbridge/nowhere:0"),
        ("FREESWITCH_IMAGE", image),
        ("DEBIAN_RELEASE", &release),
        ("DOCKER_PULL", "no"),
    ];
    let words = ["no image rustbridge/nowhere:0", "in BUILDER_IMAGE"];
    refused(&script("build.sh", &[], &environment), &words);
}

#[test]
fn an_image_without_fs_cli_is_refused() {
    let Some(ground) = ground_apart("an_image_without_fs_cli_is_refused") else { return };
    let (image, program) =
        (ground.run.freeswitch[0].clone(), ground.path_of(&ground.run.module[0], "FS_CLI"));
    let crafted = Crafted::without(&ground, &image, "fs-cli", &program);
    refused(&crafted.build(), &[&format!("but no {program}"), "install it there first"]);
}

/// Of an image that brings a configuration of its own.
#[test]
fn what_the_build_leaves_to_others_is_pointed_out() {
    let Some(ground) = ground_apart("what_the_build_leaves_to_others_is_pointed_out") else {
        return;
    };
    let (image, conf) =
        (ground.run.freeswitch[0].clone(), ground.path_of(&ground.run.module[0], "CONF"));
    let file = format!("{conf}/autoload_configs/switch.conf.xml");
    let list = b"<configuration name=\"switch.conf\"><interface-allowlist><allow name=\"mod_dptools.echo.app\"/></interface-allowlist></configuration>";
    let own = format!("{conf}/autoload_configs/rustbridge.conf.xml");
    let text = b"<configuration name=\"rustbridge.conf\"/>";
    let crafted = Crafted::of(&ground, &image, "allow", &[(&file, list), (&own, text)]);
    let done = crafted.build();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    for (place, remedy) in [
        ("interface-allowlist", &["<allow name=\"mod_rustbridge\"/>"][..]),
        (&own, &["not linked to /etc/rustbridge", "storage-dir is /var/lib/rustbridge"]),
    ] {
        let line = said.lines().find(|line| line.contains(place));
        let line = line.unwrap_or_else(|| panic!("no word of {place}: {said}"));
        assert!(remedy.iter().all(|words| line.contains(words)), "{line}");
        println!("{line}");
    }
}

#[test]
fn a_refusal_is_told_apart_from_a_note() {
    let Some(ground) = ground_apart("a_refusal_is_told_apart_from_a_note") else { return };
    let (image, conf) =
        (ground.run.freeswitch[0].clone(), ground.path_of(&ground.run.module[0], "CONF"));
    let (own, list) =
        (format!("{conf}/autoload_configs/rustbridge.conf.xml"), format!("{conf}/{LIST}"));
    let files = [(&*own, &b"<configuration/>"[..]), (&*list, b"<configuration/>")];
    let crafted = Crafted::of(&ground, &image, "note", &files);
    refused(&crafted.build(), &["modules.conf.xml without <modules>", "mend it first"]);
}

#[test]
fn a_spool_folder_that_cannot_be_written_is_said_at_the_start() {
    let Some(ground) = ground_apart("a_spool_folder_that_cannot_be_written_is_said_at_the_start")
    else {
        return;
    };
    let run = ["run", "--rm", "--label", &ground.run.label(), "--read-only", &ground.run.module[0]];
    let done = command(&run).output().expect("docker can be started");
    refused(&done, &["cannot be written by user", "mount a volume there"]);
}

#[test]
fn a_missing_token_is_refused() {
    let Some(ground) = ground_apart("a_missing_token_is_refused") else { return };
    let folder = Folder::new("token");
    let (token, empty) = (folder.write("token", "none"), folder.write("empty", ""));
    let vendor = |file: &str, mirror: &str| {
        let environment = [
            ("SIGNALWIRE_TOKEN_FILE", file),
            ("DEBIAN_MIRROR", mirror),
            ("BASE_IMAGE", &ground.run.base),
        ];
        script("build.sh", &["--vendor"], &environment)
    };
    refused(&vendor("", ""), &["no token", "name the file that has it in SIGNALWIRE_TOKEN_FILE"]);
    let nowhere = folder.join("nowhere");
    let words = ["cannot be read from", "nowhere: name a file that can in SIGNALWIRE_TOKEN_FILE"];
    refused(&vendor(nowhere.to_str().unwrap(), ""), &words);
    let words = ["missing or empty", "--secret id=signalwire-token", "SIGNALWIRE_TOKEN_FILE"];
    refused(&vendor(empty.to_str().unwrap(), ""), &words);
    let words = ["cannot get Debian's packages", "--build-arg DEBIAN_MIRROR=", "docker-vendor"];
    refused(&vendor(token.to_str().unwrap(), "http://127.0.0.1:9/debian"), &words);
    // As README has it.
    let done = make(&["docker-vendor", "SIGNALWIRE_TOKEN_FILE=token.txt"]).output();
    let done = done.expect("make can be started");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("cannot be read from token.txt"), "{said}");
}

#[test]
fn no_network_is_said_with_what_could_not_be_had() {
    let Some(_ground) = ground_apart("no_network_is_said_with_what_could_not_be_had") else {
        return;
    };
    let done =
        script("build.sh", &["--only-check"], &[("DEBIAN_MIRROR", "http://127.0.0.1:9/debian")]);
    refused(&done, &["cannot get Debian's packages", "DEBIAN_MIRROR"]);
}

#[test]
fn no_engine_is_said_with_how_to_get_one() {
    let Some(_ground) = ground_apart("no_engine_is_said_with_how_to_get_one") else { return };
    for name in ["base.sh", "build.sh", "test.sh"] {
        let done = script(name, &[], &[("DOCKER_HOST", "unix:///nonexistent/docker.sock")]);
        refused(
            &done,
            &["no Docker engine answers at unix:///nonexistent/docker.sock", "start it with"],
        );
        let done = script(name, &[], &[("DOCKER", "no-such-docker")]);
        refused(&done, &["no docker is installed", "apt-get install docker.io"]);
    }
}

#[test]
fn a_port_in_use_is_refused_before_anything_starts() {
    let Some(_ground) = ground_apart("a_port_in_use_is_refused_before_anything_starts") else {
        return;
    };
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port can be bound");
    let port = taken.local_addr().expect("it has an address").port().to_string();
    let project = ("COMPOSE_PROJECT_NAME", "rustbridge-ports");
    let done = script("compose.sh", &["up"], &[project, ("RABBITMQ_PORT", &port)]);
    refused(&done, &[&format!("port {port} is in use"), "RABBITMQ_PORT"]);
    let taken = UdpSocket::bind(("127.0.0.1", 0)).expect("a port can be bound");
    let port = taken.local_addr().expect("it has an address").port().to_string();
    let free = free_port().to_string();
    let ports = [project, ("RABBITMQ_PORT", &free), ("SIP_PORT", &port)];
    let done = script("compose.sh", &["up"], &ports);
    refused(&done, &[&format!("port {port} is in use"), "SIP_PORT"]);
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port can be bound");
    let port = taken.local_addr().expect("it has an address").port().to_string();
    let sip = free_port().to_string();
    let ports = [project, ("RABBITMQ_PORT", &free), ("SIP_PORT", &sip), ("PROMETHEUS_PORT", &port)];
    refused(
        &script("compose.sh", &["up"], &ports),
        &[&format!("port {port} is in use"), "PROMETHEUS_PORT"],
    );
}

/// A configuration that is mounted read-only cannot be mended, so it is said what it lacks, and FreeSWITCH runs.
#[test]
fn a_read_only_configuration_without_the_load_line_is_said() {
    let Some(ground) = ground_apart("a_read_only_configuration_without_the_load_line_is_said")
    else {
        return;
    };
    let folder = Folder::new("read-only");
    for name in ["freeswitch.xml", LIST, "autoload_configs/others.conf.xml"] {
        let file = root().join("tests/docker/conf").join(name);
        let text = std::fs::read_to_string(file).expect("it can be read");
        folder.write(name, text.replace("<load module=\"mod_rustbridge\"/>", ""));
    }
    let mount = format!("{}:/mounted:ro", folder.path().display());
    let name = ground.run.name("read-only");
    let options = ["-v", &mount, "-e", "FREESWITCH_CONF=/mounted"];
    ground.start(&name, &ground.run.test[0], "readonly", &options, &[], &[]);
    wait_until(LIMIT, "FreeSWITCH to be up", || {
        let done = ground.fs_cli("readonly", "status").output().expect("docker can be started");
        String::from_utf8_lossy(&done.stdout).contains("is ready")
    });
    let line = format!(
        "rustbridge-start: /mounted/{LIST} does not load mod_rustbridge: add <load module=\"mod_rustbridge\"/> to it"
    );
    let said = logs(&name);
    assert_eq!(said.lines().filter(|said| *said == line).count(), 1, "{said}");
    println!("{line}");
    docker(&["rm", "-f", "-v", &name]);
}
