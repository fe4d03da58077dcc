// SPDX-License-Identifier: MIT
//! What a run found: printed as a table, kept as JSON below the target folder.

use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::rounds::{Ratio, Series};
use crate::support;

/// The results of one suite.
#[derive(Debug)]
pub struct Results {
    suite: &'static str,
    rows: Vec<Value>,
    facts: Map<String, Value>,
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
}

/// What was built, where git knows.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(support::root());
    let said = git.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(said.stdout).ok().map(|text| text.trim().to_owned())
}

impl Results {
    pub fn new(suite: &'static str) -> Self {
        println!("== {suite}: load average {:.2} at the start", load_average());
        let mut facts = Map::new();
        facts.insert("load_average_before".into(), load_average().into());
        facts.insert("processor".into(), processor().into());
        let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        facts.insert("processors".into(), processors.into());
        facts.insert("module".into(), env!("CARGO_PKG_VERSION").into());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // Its version, without what a distribution calls its build.
        let version = kernel.split('-').next().unwrap_or_default().trim();
        facts.insert("kernel".into(), format!("Linux {version}").into());
        if let Some(commit) = commit() {
            facts.insert("commit".into(), format!("commit {commit}").into());
        }
        let since = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        facts.insert("unix_time".into(), since.into());
        Self { suite, rows: Vec::new(), facts }
    }

    /// A version or other circumstance that belongs to the figures.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        println!("   {name}: {value}");
        self.facts.insert(name.into(), value);
    }

    /// A figure as a ratio.
    pub fn ratio(&mut self, what: &str, case: &str, of: &Series, by: &Series) {
        let ratio = Ratio::new(of, by);
        println!("   {case:<34} {what:<44} {ratio}  [{:.1} / {:.1}]", of.median(), by.median());
        self.rows.push(json!({
            "what": what, "case": case, "ratio": ratio.json(),
            "measured": of.median(), "baseline": by.median(),
            "rounds": of.settled(), "baseline_rounds": by.settled(),
        }));
    }

    /// An absolute figure, for people: never a bar.
    pub fn figure(&mut self, what: &str, case: &str, unit: &str, series: &Series) {
        println!("   {case:<34} {what:<44} {:.1} {unit}", series.median());
        self.rows.push(json!({
            "what": what, "case": case, "unit": unit, "measured": series.median(),
            "spread": series.spread(), "rounds": series.settled(),
        }));
    }

    /// Writes `<target>/bench/<suite>.json`.
    pub fn write(mut self) {
        self.facts.insert("load_average_after".into(), load_average().into());
        let folder = support::target().join("bench");
        fs::create_dir_all(&folder).expect("the target folder can be written");
        let file = folder.join(format!("{}.json", self.suite));
        let all = json!({ "suite": self.suite, "facts": self.facts, "rows": self.rows });
        let text = serde_json::to_string_pretty(&all).expect("results are JSON");
        fs::write(&file, text + "\n").expect("the target folder can be written");
        println!("== {}: load average {:.2} at the end", self.suite, load_average());
    }
}
