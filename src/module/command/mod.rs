// SPDX-License-Identifier: MIT
//! `rustbridge …` in `fs_cli`, and what the dialplan may call.

mod dlq;
mod status;
mod table;
mod words;

use std::ffi::CStr;
use std::path::Path;

use super::publish::{self, Request, variable_of};
use super::{Call, Module, lock, source};
use crate::config::reference;
use crate::pipeline::Pipeline;
use crate::switch::{
    Answer, ApiHandler, AppHandler, Completion, Core, Directory, Interfaces, Session, SwitchError,
    xml::Document,
};

/// API commands that are registered.
pub(super) const APIS: &[&CStr] = &[c"rustbridge", c"rustbridge_publish"];
/// Applications that are registered.
pub(super) const APPS: &[&CStr] = &[c"rustbridge_publish"];

/// Words behind `rustbridge`, what follows them, and what they do.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("status", "[json]", "the module and every sink, with its account"),
    ("sinks", "[json]", "the sinks: the broker in use, how it was, what they want"),
    ("events", "[json]", "the events that this FreeSWITCH has, and the sinks that want them"),
    ("publish", publish_syntax(), "send a message of your own through a sink"),
    ("validate", "[file]", "check the configuration, or another file, without using it"),
    ("reload", "", "read the configuration anew; a bad one changes nothing"),
    ("spool", "[sink] [json]", "what waits on disk, and what a power cut would take"),
    ("pause", "<sink>", "send nothing to a sink; events wait"),
    ("resume", "<sink>", "send again"),
    (
        "dlq",
        dlq::SYNTAX,
        "messages that the broker rejected: look at them, send or throw them away",
    ),
    ("reconnect", "<sink>", "try the broker now instead of at the end of the wait"),
    ("version", "[json]", "the versions of the module and of what it was built with"),
    ("help", "[sink|settings|parameter]", "this list, or what a parameter means"),
];

const fn publish_syntax() -> &'static str {
    "<exchange|topic|-> <routing-key|-> <payload> [name=value;...]"
}

/// Registers everything with the core.
pub(super) fn register(interfaces: &mut Interfaces) -> Result<(), SwitchError> {
    interfaces.add_api::<Rustbridge>(
        c"rustbridge",
        c"Events to Kafka, RabbitMQ and files",
        c"status|sinks|events|spool|publish|validate|reload|pause|resume|reconnect|dlq|version|help",
    )?;
    interfaces.add_api::<Publish>(
        c"rustbridge_publish",
        c"Publish a message through a sink",
        publish::SYNTAX,
    )?;
    interfaces.add_app::<Publish>(
        c"rustbridge_publish",
        c"Publish a message through a sink",
        publish::SYNTAX,
    )?;
    interfaces.add_completion::<SinkNames>(c"::rustbridge::sinks");
    for (word, follows, _) in COMMANDS {
        match *follows {
            "[json]" => {
                Interfaces::complete(&format!("add rustbridge {word}"));
                Interfaces::complete(&format!("add rustbridge {word} json"));
            }
            dlq::SYNTAX => {
                for action in dlq::ACTIONS {
                    Interfaces::complete(&format!(
                        "add rustbridge {word} {action} ::rustbridge::sinks"
                    ));
                }
            }
            "<sink>" => Interfaces::complete(&format!("add rustbridge {word} ::rustbridge::sinks")),
            _ => Interfaces::complete(&format!("add rustbridge {word}")),
        }
    }
    Ok(())
}

/// The API command `rustbridge`.
struct Rustbridge;

impl ApiHandler for Rustbridge {
    fn call(arguments: &str, session: Option<&Session<'_>>) -> Answer {
        let Some(call) = Call::begin() else { return not_loaded() };
        Answer(run(&call.0, arguments.trim(), session).unwrap_or_else(|words| err(&words)))
    }
}

/// `rustbridge_publish`, as a command and as an application.
struct Publish;

impl ApiHandler for Publish {
    fn call(arguments: &str, session: Option<&Session<'_>>) -> Answer {
        let Some(call) = Call::begin() else { return not_loaded() };
        Answer(publish_now(&call.0, arguments, session).unwrap_or_else(|words| err(&words)))
    }
}

impl AppHandler for Publish {
    fn run(arguments: &str, session: &Session<'_>) {
        let answer = match Call::begin() {
            None => not_loaded().0,
            Some(call) => publish_now(&call.0, arguments, Some(session)).unwrap_or_else(|words| {
                log::warn!("rustbridge_publish: {words}");
                err(&words)
            }),
        };
        // What the dialplan can branch on.
        session.set_variable("rustbridge_publish_result", answer.trim_end());
    }
}

/// Names of sinks, for tab completion.
struct SinkNames;

impl Completion for SinkNames {
    fn words() -> Vec<String> {
        Call::begin().map(|call| lock(&call.0.sinks).names()).unwrap_or_default()
    }
}

fn not_loaded() -> Answer {
    Answer(err("mod_rustbridge is not loaded"))
}

fn err(words: &str) -> String {
    format!("-ERR {words}\n")
}

fn ok(words: &str) -> String {
    format!("+OK {words}\n")
}

fn publish_now(
    module: &Module,
    arguments: &str,
    session: Option<&Session<'_>>,
) -> Result<String, String> {
    let request = Request::parse(arguments, variable_of(session))?;
    let dispatch = module.handler.dispatch().ok_or("mod_rustbridge is stopping")?;
    let target = dispatch
        .publish(request.sink.as_deref(), request.record())
        .map_err(|error| error.to_string())?;
    Ok(ok(&format!("queued for {}", target.name)))
}

fn run(module: &Module, line: &str, session: Option<&Session<'_>>) -> Result<String, String> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match word {
        "" | "help" => help(rest),
        "status" => {
            Ok(if wants_json(word, rest)? { status::json(module) } else { status::table(module) })
        }
        "sinks" => Ok(if wants_json(word, rest)? {
            status::sinks_json(module)
        } else {
            status::sinks_table(module)
        }),
        "events" => Ok(if wants_json(word, rest)? {
            status::events_json(module)
        } else {
            status::events_table(module)
        }),
        "version" => Ok(if wants_json(word, rest)? {
            status::version_json(module)
        } else {
            status::version(module)
        }),
        "spool" => spool(module, rest),
        "publish" => publish_now(module, rest, session),
        "validate" => validate(module, rest),
        "dlq" => dlq::run(module, rest),
        "reload" => nothing_more(word, rest).and_then(|()| reload(module)),
        "pause" => with_sink(module, word, rest, Pipeline::pause),
        "resume" => with_sink(module, word, rest, Pipeline::resume),
        "reconnect" => with_sink(module, word, rest, Pipeline::reconnect),
        _ => Err(unknown(word)),
    }
}

fn unknown(word: &str) -> String {
    let known = COMMANDS.iter().map(|(word, _, _)| *word);
    let meant = words::nearest(word, known)
        .map_or_else(String::new, |nearest| format!("; did you mean {nearest:?}?"));
    format!("there is no command {:?}{meant} Try: rustbridge help", words::shown(word))
}

fn wants_json(command: &str, rest: &str) -> Result<bool, String> {
    match rest {
        "" => Ok(false),
        "json" | "as json" => Ok(true),
        _ => Err(format!(
            "{:?} says nothing to {command:?}; usage: rustbridge {command} [json]",
            words::shown(rest)
        )),
    }
}

fn nothing_more(command: &str, rest: &str) -> Result<(), String> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(format!("{command:?} takes no arguments, found {:?}", words::shown(rest)))
}

fn help(topic: &str) -> Result<String, String> {
    let is_command = COMMANDS.iter().any(|(word, ..)| *word == topic);
    if !topic.is_empty() && !is_command {
        return reference::help(Some(topic));
    }
    let rows = COMMANDS
        .iter()
        .filter(|(word, ..)| !is_command || *word == topic)
        .map(|(word, follows, about)| vec![format!("rustbridge {word} {follows}"), (*about).into()])
        .collect::<Vec<_>>();
    Ok(table::render(&["command", "what it does"], &rows))
}

fn validate(module: &Module, file: &str) -> Result<String, String> {
    // Reading everything anew, as a reload does, would put changes of others into force.
    let usual = Core::directory(Directory::Conf)
        .map(|conf| conf.join("autoload_configs/rustbridge.conf.xml"))
        .filter(|path| path.exists());
    let (config, what) = match (file, usual) {
        ("", None) => (source::read(&module.core), "the configuration in force".to_owned()),
        ("", Some(path)) => (source::read_file(&path, &module.core), path.display().to_string()),
        (file, _) => (source::read_file(Path::new(file), &module.core), file.to_owned()),
    };
    let config = config?;
    let enabled = config.sinks.iter().filter(|sink| sink.enabled).count();
    Ok(ok(&format!("{what} is valid: {enabled} sinks")))
}

fn reload(module: &Module) -> Result<String, String> {
    let unchanged =
        |words: String| format!("{words}\nNothing has changed: the sinks go on as before");
    Document::reload().map_err(|error| unchanged(error.to_string()))?;
    let config = source::read(&module.core).map_err(unchanged)?;
    let changes = lock(&module.sinks)
        .reload(config, &module.core, &module.pool, &module.handler)
        .map_err(|error| unchanged(error.to_string()))?;
    let later = if changes.live_calls {
        "; live-calls, and where it keeps them, change when the module is loaded again"
    } else {
        ""
    };
    let list = |what: &str, names: &[String]| {
        if names.is_empty() { String::new() } else { format!(", {what} {}", names.join(" ")) }
    };
    Ok(ok(&format!(
        "reloaded: {} unchanged{}{}{}{later}",
        changes.kept,
        list("started", &changes.started),
        list("replaced", &changes.replaced),
        list("stopped", &changes.stopped),
    )))
}

fn spool(module: &Module, rest: &str) -> Result<String, String> {
    let (only, json) = match rest.strip_suffix("json") {
        Some(only) if only.is_empty() || only.ends_with(' ') => (only.trim(), true),
        _ => (rest, false),
    };
    if !only.is_empty() {
        known_sink(module, "spool", only)?;
    }
    let only = Some(only).filter(|only| !only.is_empty());
    Ok(if json { status::spool_json_all(module, only) } else { status::spool_table(module, only) })
}

/// Says so when there is no sink of this name.
fn known_sink(module: &Module, command: &str, name: &str) -> Result<(), String> {
    with_sink(module, command, name, |_| ()).map(drop)
}

fn with_sink(
    module: &Module,
    command: &str,
    name: &str,
    act: impl FnOnce(&Pipeline),
) -> Result<String, String> {
    let sinks = lock(&module.sinks);
    if let Some(pipeline) = sinks.find(name) {
        act(pipeline);
        return Ok(ok(&format!("{command} {name}")));
    }
    let names = sinks.names();
    if name.is_empty() {
        return Err(format!("{command:?} needs the name of a sink: {}", names.join(", ")));
    }
    let meant = words::nearest(name, names.iter().map(String::as_str))
        .map_or_else(String::new, |nearest| format!("; did you mean {nearest:?}?"));
    Err(format!("there is no sink {:?}{meant}", words::shown(name)))
}
