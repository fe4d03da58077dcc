// SPDX-License-Identifier: MIT
//! Puts the results below the target folder into `docs/performance.md`: a table between each pair of marks, and plots.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use crate::support::{root, target};

fn results(suite: &str) -> Option<Value> {
    let text = fs::read_to_string(target().join("bench").join(format!("{suite}.json"))).ok()?;
    serde_json::from_str(&text).ok()
}

fn rows(results: &Value) -> impl Iterator<Item = &Value> {
    results["rows"].as_array().into_iter().flatten()
}

/// Three digits that count.
fn short(number: f64) -> String {
    match number.abs() {
        size if !size.is_finite() => "–".into(),
        size if size >= 1_000.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

const PERCENTILES: [&str; 5] = ["p50", "p99", "p99.9", "max", "CPU"];

/// Whether a row is one percentile of several: of what, and which.
fn percentile(row: &Value) -> Option<(&str, usize)> {
    let (what, name) = row["what"].as_str()?.rsplit_once(", ")?;
    let place = PERCENTILES.iter().position(|known| *known == name)?;
    row.get("ratio").is_none().then_some((what, place))
}

/// A line each for what has all of them.
fn percentiles(results: &Value) -> Vec<((&str, &str), [String; 5])> {
    let mut lines: Vec<((&str, &str), [String; 5])> = Vec::new();
    for row in rows(results) {
        let Some((what, place)) = percentile(row) else { continue };
        let key = (what, row["case"].as_str().unwrap_or(""));
        if lines.last().is_none_or(|(last, _)| *last != key) {
            lines.push((key, Default::default()));
        }
        if let Some((_, values)) = lines.last_mut() {
            let unit = row["unit"].as_str().unwrap_or("");
            values[place] = format!("{} {unit}", short(number(&row["measured"])));
        }
    }
    lines
}

/// What was measured, as a table with a line about the circumstances.
fn table(results: &Value) -> String {
    let facts = &results["facts"];
    let fact = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    let versions: String = ["switch", "rabbitmq", "kafka", "kernel", "commit"]
        .iter()
        .filter_map(|name| facts[*name].as_str())
        .fold(String::new(), |all, version| all + "; " + version);
    let mut out = format!(
        "{} processors ({}), load average {} before and {} after{versions}\n\n",
        facts["processors"],
        fact("processor"),
        short(number(&facts["load_average_before"])),
        short(number(&facts["load_average_after"])),
    );
    let percentiles = percentiles(results);
    if !percentiles.is_empty() {
        // Only the columns that something stands in.
        let used = |place: usize| percentiles.iter().any(|(_, values)| !values[place].is_empty());
        let used: Vec<usize> = (0..PERCENTILES.len()).filter(|place| used(*place)).collect();
        let columns = |of: &dyn Fn(usize) -> String| {
            used.iter().map(|place| of(*place)).collect::<Vec<_>>().join(" | ")
        };
        let names = columns(&|place| PERCENTILES[place].to_owned());
        let rule = columns(&|_| "---:".to_owned());
        writeln!(out, "| what | case | {names} |\n| --- | --- | {rule} |").expect("text");
        for ((what, case), values) in &percentiles {
            let values = columns(&|place| values[place].clone());
            writeln!(out, "| {what} | {case} | {values} |").expect("text");
        }
        out.push('\n');
    }
    out.push_str("| what | case | result | between | worst round |\n");
    out.push_str("| --- | --- | ---: | ---: | ---: |\n");
    for row in rows(results).filter(|row| percentile(row).is_none()) {
        let (what, case) = (row["what"].as_str().unwrap_or(""), row["case"].as_str().unwrap_or(""));
        let [result, between, worst] = match row.get("ratio") {
            None => {
                let unit = row["unit"].as_str().unwrap_or("");
                let figure = format!("{} {unit}", short(number(&row["measured"])));
                [figure.trim().to_owned(), String::new(), String::new()]
            }
            Some(ratio) => {
                let (low, high) = (short(number(&ratio["low"])), short(number(&ratio["high"])));
                let between = format!("{low} – {high}");
                if ratio["comparable"] == true {
                    let median = format!("**{}**", short(number(&ratio["median"])));
                    [median, between, short(number(&ratio["worst"]))]
                } else {
                    ["not comparable".to_owned(), between, String::new()]
                }
            }
        };
        writeln!(out, "| {what} | {case} | {result} | {between} | {worst} |").expect("text");
    }
    out
}

/// The points of the figure `what`: its cases are numbers.
fn points(results: &Value, what: &str) -> Vec<(f64, f64)> {
    let found = rows(results).filter(|row| row["what"] == what);
    let points = found
        .filter_map(|row| Some((row["case"].as_str()?.parse().ok()?, row["measured"].as_f64()?)));
    points.filter(|(_, value): &(f64, f64)| *value > 0.0).collect()
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const EDGE: f64 = 40.0;

/// A curve, both axes logarithmic.
fn curve(title: &str, across: &str, points: &[(f64, f64)]) -> String {
    let range = |values: Vec<f64>| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min).log10().floor();
        let most = values.iter().copied().fold(0.0, f64::max).log10().ceil();
        (least, most.max(least + 1.0))
    };
    let (left, right) = range(points.iter().map(|(x, _)| *x).collect());
    let (low, high) = range(points.iter().map(|(_, y)| *y).collect());
    let x = |value: f64| LEFT + (value.log10() - left) / (right - left) * (WIDTH - LEFT - EDGE);
    let y =
        |value: f64| HEIGHT - EDGE - (value.log10() - low) / (high - low) * (HEIGHT - 2.0 * EDGE);
    let mut out = start(title);
    for power in low as i32..=high as i32 {
        let (at, value) = (y(10_f64.powi(power)), 10_f64.powi(power));
        line(&mut out, (LEFT, at), (WIDTH - EDGE, at));
        text(&mut out, (LEFT - 6.0, at + 4.0), "end", &nanoseconds(value));
    }
    for power in left as i32..=right as i32 {
        let (at, value) = (x(10_f64.powi(power)), 10_f64.powi(power));
        line(&mut out, (at, EDGE), (at, HEIGHT - EDGE));
        text(&mut out, (at, HEIGHT - EDGE + 16.0), "middle", &format!("{value}"));
    }
    text(&mut out, (WIDTH / 2.0, HEIGHT - 6.0), "middle", across);
    let path: Vec<String> =
        points.iter().map(|(size, value)| format!("{:.1},{:.1}", x(*size), y(*value))).collect();
    writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\"/>",
        path.join(" ")
    )
    .expect("text");
    for (size, value) in points {
        let (at, up) = (x(*size), y(*value));
        writeln!(out, "<circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"#1f6feb\"/>")
            .expect("text");
    }
    out + "</svg>\n"
}

/// Bars, one below the other.
fn bars(title: &str, unit: &str, values: &[(String, f64)]) -> String {
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let mut out = start(title);
    let step = (HEIGHT - 2.0 * EDGE) / values.len().max(1) as f64;
    for (place, (name, value)) in values.iter().enumerate() {
        let top = EDGE + step * place as f64;
        let width = value / most * (WIDTH - 330.0);
        text(&mut out, (250.0, top + step / 2.0 + 4.0), "end", name);
        writeln!(
            out,
            "<rect x=\"256\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#1f6feb\"/>",
            top + step * 0.15,
            step * 0.7
        )
        .expect("text");
        let at = (262.0 + width, top + step / 2.0 + 4.0);
        text(&mut out, at, "start", &format!("{} {unit}", short(*value)));
    }
    out + "</svg>\n"
}

fn start(title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{}\" y=\"22\" text-anchor=\"middle\" font-size=\"14\">{title}</text>\n",
        WIDTH / 2.0
    )
}

fn line(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#d0d7de\"/>"
    )
    .expect("text");
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>")
        .expect("text");
}

fn nanoseconds(value: f64) -> String {
    if value >= 1e6 {
        format!("{} ms", value / 1e6)
    } else if value >= 1e3 {
        format!("{} µs", value / 1e3)
    } else {
        format!("{value} ns")
    }
}

fn plots() -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    if let Some(growth) = results("growth") {
        for (file, what, across) in [
            ("headers", "callback, by headers", "headers of an event"),
            ("sinks", "callback, by sinks", "sinks that want it"),
            (
                "patterns",
                "callback, by patterns of a sink",
                "patterns of a sink, of which the last fits",
            ),
            ("waiting", "callback, by waiting events", "events that wait already"),
            ("threads", "callback, by dispatch threads", "threads that deliver at once"),
            ("calls", "callback, by live calls", "calls that are alive"),
        ] {
            let points = points(&growth, what);
            if points.len() > 1 {
                plots.push((file, curve("What the callback takes", across, &points)));
            }
        }
    }
    if let Some(filling) = results("filling") {
        let points = points(&filling, "append of 64 events, by MiB in the spool");
        // The axis is in nanoseconds.
        let points: Vec<(f64, f64)> = points.iter().map(|(size, us)| (*size, us * 1e3)).collect();
        if points.len() > 1 {
            let title = "What an append of 64 events takes";
            plots.push(("filling", curve(title, "MiB in the spool", &points)));
        }
    }
    if let Some(rabbitmq) = results("rabbitmq") {
        let rates: Vec<(String, f64)> = rows(&rabbitmq)
            .filter(|row| row["unit"] == "events/s")
            .map(|row| {
                let [what, case] =
                    [&row["what"], &row["case"]].map(|text| text.as_str().unwrap_or(""));
                let queue = case.split(',').next().unwrap_or_default();
                (format!("{what}; {queue}"), number(&row["measured"]))
            })
            .collect();
        plots.push(("rabbitmq", bars("To RabbitMQ, this machine and run", "events/s", &rates)));
    }
    plots
}

/// Writes what there are results of; the rest of the page stays.
pub fn write() {
    let page = root().join("docs/performance.md");
    let mut text = fs::read_to_string(&page).expect("the page is there");
    for (suite, _) in crate::SUITES {
        let (Some(found), begin) = (results(suite), format!("<!-- results: {suite} -->\n")) else {
            continue;
        };
        let Some(from) = text.find(&begin).map(|at| at + begin.len()) else { continue };
        let rest = text.get(from..).unwrap_or_default();
        let to = from + rest.find("<!-- end -->").expect("results have an end");
        text.replace_range(from..to, &table(&found));
        println!("{suite}: {}", page.display());
    }
    fs::write(&page, text).expect("the page can be written");
    let folder = root().join("docs/plots");
    fs::create_dir_all(&folder).expect("a folder can be made");
    for (name, plot) in plots() {
        fs::write(folder.join(format!("{name}.svg")), plot).expect("a plot can be written");
    }
}
