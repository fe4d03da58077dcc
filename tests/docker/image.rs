// SPDX-License-Identifier: MIT
//! The image itself: what it adds, who runs it, what it may write, and that its own configuration loads the module.

use std::time::Duration;

use crate::engine::{ask, docker, inspect, logs};
use crate::ground::ground_apart;
use crate::support::{Folder, wait_until};

/// A vanilla configuration asks the Internet for its address first, and waits for an answer that does not come here.
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn the_image_loads_the_module_as_nobody_special_on_a_read_only_root() {
    let Some(ground) =
        ground_apart("the_image_loads_the_module_as_nobody_special_on_a_read_only_root")
    else {
        return;
    };
    for image in &ground.run.module {
        let name = ground.run.name("plain");
        // Its own list of modules, without mod_sofia: where that cannot find out its address, as here, FreeSWITCH 1.10.12 now
        // and then crashes while it starts, with this module and without. And read-only, as configuration may be.
        let list = ground.path_of(image, "CONF") + "/autoload_configs/modules.conf.xml";
        let text = String::from_utf8(ground.file_of(image, &list)).expect("the list is text");
        assert_eq!(text.matches("<load module=\"mod_rustbridge\"/>").count(), 1, "{text}");
        let folder = Folder::new("plain");
        let file =
            folder.write("modules.conf.xml", text.replace("<load module=\"mod_sofia\"/>", ""));
        let mount = format!("{}:{list}:ro", file.display());
        // Nothing but what the image says of itself: entry point, configuration, volume, user, health check.
        let options = [
            "--read-only",
            "--tmpfs",
            "/tmp",
            "-v",
            "/run/freeswitch",
            "-v",
            "/var/log/freeswitch",
            "-v",
            "/var/lib/freeswitch",
            // Its vanilla configuration asks this host for its own address: so that it is known not to answer.
            "--add-host",
            "stun.freeswitch.org:127.0.0.1",
            // And its event socket is on ::, also where the network has no IPv6.
            "--sysctl",
            "net.ipv6.conf.all.disable_ipv6=0",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--health-interval",
            "1s",
            "-v",
            &mount,
        ];
        ground.start(&name, image, "plain", &options, &[], &[]);
        let mut state = String::new();
        wait_until(LIMIT, &format!("{image} to be healthy"), || {
            state = inspect(&name, "{{.State.Health.Status}} {{.State.Running}}");
            assert!(state.ends_with("true"), "{image} ended:\n{}", logs(&name));
            state.starts_with("healthy")
        });
        let id = docker(&["exec", &name, "id", "-u"]);
        assert_ne!(id.trim(), "0", "FreeSWITCH runs as root");
        let who = docker(&["exec", &name, "stat", "-c", "%u", "/proc/1"]);
        assert_eq!(who, id);
        let kept = docker(&["exec", &name, "stat", "-c", "%u", "/var/lib/rustbridge"]);
        assert_eq!(kept, id, "the spool volume is the runtime user's");
        assert!(ask(&["exec", &name, "touch", "/etc/x"]).is_err(), "the root is read-only");
        docker(&["exec", &name, "rustbridge-health"]);
        // A volume of its own for spools, by the image's VOLUME.
        let mounts = inspect(&name, "{{range .Mounts}}{{.Destination}} {{end}}");
        assert!(mounts.contains("/var/lib/rustbridge"), "{mounts}");
        docker(&["rm", "-f", "-v", &name]);
        println!("{image}: healthy, user {}", id.trim());
    }
}

#[test]
fn the_image_adds_little_and_tells_no_secret() {
    let Some(ground) = ground_apart("the_image_adds_little_and_tells_no_secret") else { return };
    for (base, image) in ground.run.freeswitch.iter().zip(&ground.run.module) {
        let size =
            |image: &str| inspect(image, "{{.Size}}").parse::<u64>().expect("a size is a number");
        let added = size(image) - size(base);
        println!("{image}: {base} and {} kB", added / 1000);
        assert!(added < 25_000_000, "{image} adds {added} bytes");
        let history = docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", image]);
        let environment = inspect(image, "{{.Config.Env}} {{.Config.Labels}}");
        for word in ["password", "token", "secret", "BEGIN ", "://"] {
            let told = format!("{history}{environment}").to_lowercase();
            assert!(!told.contains(&word.to_lowercase()), "{image} tells {word}: {told}");
        }
    }
}

#[test]
fn a_module_that_is_not_loaded_makes_the_container_unhealthy_and_is_said() {
    let Some(ground) =
        ground_apart("a_module_that_is_not_loaded_makes_the_container_unhealthy_and_is_said")
    else {
        return;
    };
    let name = ground.run.name("unloaded");
    let list = "<configuration name=\"modules.conf\"><modules><load module=\"mod_console\"/>\
                <load module=\"mod_commands\"/><load module=\"mod_event_socket\"/></modules></configuration>";
    let file = ("/test/conf/autoload_configs/modules.conf.xml", list);
    ground.start(
        &name,
        &ground.run.test[0],
        "unloaded",
        &["--health-interval", "1s", "--health-start-period", "0s"],
        &[file],
        &[],
    );
    wait_until(LIMIT, "the health check to fail for the module", || {
        inspect(&name, "{{range .State.Health.Log}}{{.Output}}{{end}}")
            .contains("mod_rustbridge is not loaded")
    });
    assert!(
        logs(&name).contains("does not load mod_rustbridge: add <load module=\"mod_rustbridge\"/>"),
        "{}",
        logs(&name)
    );
    docker(&["rm", "-f", "-v", &name]);
}
