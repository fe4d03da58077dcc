// SPDX-License-Identifier: MIT
//! What callers notice: the rhythm of the RTP that FreeSWITCH sends, and how many calls a second it completes, without the module,
//! with it, and with it while its broker is away. Beside these once more without it, which shows what the machine's own unrest makes of
//! nothing, and with a handler that only copies, which shows what the least costs that could be done.
//!
//! `SIPp` makes the calls and names sockets of ours in its SDP, so each packet's arrival is seen here. While calls play, events are
//! delivered beside them at a call centre's rate, in all cases alike. First it is found how many calls this machine holds
//! with everything on it, the broker included; then all cases have as many.
//!
//! Callers are on other machines. Here they are on this one, so they come before all that is not FreeSWITCH: else what is heard is
//! how long a listener waited for a processor that the broker had.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Effort;
use crate::load::{Candidate, Stand};
use crate::plain_amqp::PlainAmqp;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::rabbitmq::RabbitMq;
use crate::support::skips::{self, Missing};
use crate::support::{Folder, free_port, in_path};
use crate::throughput::connected;

/// Time between two packets.
const RHYTHM: f64 = 0.020;
/// A packet that comes so much later than the one before was missed by a listener.
const GAP: f64 = 0.040;
/// Events delivered a second while calls play.
const EVENTS: u32 = 1_000;

/// More calls are not tried.
const CALLS_MAX: usize = 4_000;
/// Sockets that calls share.
const SOCKETS: usize = 16;

/// What is compared. The first is what the others are held against.
const CASES: [&str; 5] = [
    "without the module",
    "without it, again",
    "with a handler that copies",
    "with it",
    "with it, broker away",
];

#[derive(Default)]
struct Found {
    /// With as many calls as the machine holds, and with half of them.
    playing: [Playing; 2],
    rate: Series,
}

#[derive(Default)]
struct Playing {
    /// Mean difference from the rhythm, in seconds.
    jitter: Series,
    /// Of a thousand packets, how many came too late.
    gaps: Series,
}

/// What one call's packets were.
#[derive(Default)]
struct Ear {
    last: Option<Instant>,
    packets: u64,
    difference: f64,
    gaps: u64,
}

impl Ear {
    fn hears(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let between = (now - last).as_secs_f64();
            self.packets += 1;
            self.difference += (between - RHYTHM).abs();
            self.gaps += u64::from(between > GAP);
        }
    }
}

/// Where calls send their packets to.
struct Place {
    folder: Folder,
    sockets: Vec<UdpSocket>,
}

impl Place {
    fn new() -> Self {
        let bind = |_| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port can be bound");
            socket.set_nonblocking(true).expect("a socket option");
            socket
        };
        let (folder, sockets) = (Folder::new("bench-quality"), (0..SOCKETS).map(bind).collect());
        let place = Self { folder, sockets };
        let mut ports = "SEQUENTIAL\n".to_owned();
        for socket in &place.sockets {
            let port = socket.local_addr().expect("a bound socket has an address").port();
            writeln!(ports, "{port};").expect("a string takes text");
        }
        place.folder.write("ports.csv", ports);
        place
    }
}

/// An INVITE whose SDP has the port of the call's line in the file of ports, and a BYE after `hold`.
fn scenario(hold: Duration) -> String {
    let sdp = "v=0\no=user 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio [field0] RTP/AVP 0\n\
               a=rtpmap:0 PCMU/8000\n";
    let head = |method: &str, more: &str| {
        format!(
            "<![CDATA[\n{method} sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From: <sip:bench@[local_ip]:[local_port]>;tag=[pid]b[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>{}\nCall-ID: [call_id]\n\
             Contact: <sip:bench@[local_ip]:[local_port]>\nMax-Forwards: 70\n{more}\n]]>",
            if method == "INVITE" { "" } else { "[peer_tag_param]" },
        )
    };
    let invite = head(
        "INVITE",
        &format!("CSeq: 1 INVITE\nContent-Type: application/sdp\nContent-Length: [len]\n\n{sdp}"),
    );
    let ack = head("ACK", "CSeq: 1 ACK\nContent-Length: 0\n");
    let bye = head("BYE", "CSeq: 2 BYE\nContent-Length: 0\n");
    let end = if hold.is_zero() {
        // The other side ends the call.
        "<recv request=\"BYE\"/><send><![CDATA[\nSIP/2.0 200 OK\n[last_Via:]\n[last_From:]\n[last_To:]\n[last_Call-ID:]\n\
         [last_CSeq:]\nContent-Length: 0\n\n]]></send>"
            .to_owned()
    } else {
        format!(
            "<pause milliseconds=\"{}\"/><send retrans=\"500\">{bye}</send><recv response=\"200\"/>",
            hold.as_millis()
        )
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n<scenario name=\"bench\">\n<send retrans=\"500\">{invite}</send>\n\
         <recv response=\"100\" optional=\"true\"/><recv response=\"180\" optional=\"true\"/>\
         <recv response=\"183\" optional=\"true\"/><recv response=\"200\"/>\n<send>{ack}</send>\n{end}\n</scenario>\n"
    )
}

/// Has the calling thread run before FreeSWITCH's sessions and callers: the time of a packet is that of its arrival.
fn come_first() {
    let thread = std::fs::read_link("/proc/thread-self").expect("Linux says which thread this is");
    let number = thread.file_name().expect("it has a number");
    let done = Command::new("chrt").args(["--fifo", "--pid", "2"]).arg(number).status();
    assert!(done.is_ok_and(|done| done.success()), "chrt is there, and we may");
}

/// `SIPp` with this scenario, for `count` calls to an extension.
fn sipp(stand: &mut Stand, folder: &Folder, name: &str, extension: &str, more: &[&str]) -> Command {
    let mut command = Command::new("chrt");
    command
        .args(["--fifo", "1", "sipp"])
        .arg(format!("127.0.0.1:{}", stand.switch().sip_port()))
        .args(["-sf", name, "-inf", "ports.csv", "-s", extension, "-i", "127.0.0.1"])
        .args(["-p", &free_port().to_string(), "-nostdin"])
        .args(more)
        .current_dir(folder.path())
        .stdout(File::create(folder.join("sipp.out")).expect("a file can be made"))
        .stderr(File::create(folder.join("sipp.errors")).expect("a file can be made"));
    command
}

/// What was heard of calls that played beside each other.
struct Heard {
    /// How many of them.
    calls: usize,
    packets: u64,
    /// Mean difference from the rhythm, in seconds.
    jitter: f64,
    /// Of a thousand packets, how many came too late.
    gaps: f64,
}

/// Calls that are begun a second.
const RAMP: usize = 100;

/// Has so many calls play for as long as `time` and what they take to begin, runs `body` when all are there, and says whether
/// `SIPp` could make them all.
fn playing<T>(
    stand: &mut Stand,
    place: &Place,
    calls: usize,
    time: Duration,
    body: impl FnOnce(&mut Stand) -> T,
) -> (T, bool) {
    let ramp = Duration::from_secs(2 + calls.div_ceil(RAMP) as u64);
    let hold = ramp + time + Duration::from_secs(2);
    place.folder.write("play.xml", scenario(hold));
    let (count, rate) = (calls.to_string(), RAMP.to_string());
    // What SIPp itself puts up with is as long as they all take.
    let patience = format!("{}s", (hold + ramp).as_secs() + 60);
    let limits = ["-m", &count, "-l", &count, "-r", &rate, "-timeout", &patience];
    let mut sipp = sipp(stand, &place.folder, "play.xml", "music", &limits)
        .spawn()
        .expect("sipp can be started");
    // Until all calls are there, what comes is nobody's.
    hear(&place.sockets, ramp);
    let result = body(stand);
    let done = sipp.wait().expect("sipp was started");
    (result, done.success())
}

/// Listens to what plays for so many whole seconds, while events are delivered.
fn listen(stand: &mut Stand, place: &Place, seconds: u64) -> Heard {
    let ears = std::thread::scope(|scope| {
        let ears = scope.spawn(move || {
            come_first();
            // What has gathered since the last time is none of this time's, nor is what a load takes.
            hear(&place.sockets, Duration::from_secs(1));
            hear(&place.sockets, Duration::from_secs(seconds))
        });
        stand.deliver(u64::from(EVENTS) * (seconds + 2), EVENTS);
        ears.join().expect("the listener ends")
    });
    let packets: u64 = ears.values().map(|ear| ear.packets).sum();
    let sum = |of: fn(&Ear) -> f64| ears.values().map(of).sum::<f64>();
    let (jitter, gaps) = (sum(|ear| ear.difference), sum(|ear| ear.gaps as f64));
    let all = packets.max(1) as f64;
    Heard { calls: ears.len(), packets, jitter: jitter / all, gaps: gaps / all * 1e3 }
}

/// Each call by where its packets come from: the switch has a port for each.
fn hear(sockets: &[UdpSocket], time: Duration) -> HashMap<SocketAddr, Ear> {
    let mut ears: HashMap<SocketAddr, Ear> = HashMap::new();
    let until = Instant::now() + time;
    let mut packet = [0; 2_048];
    while Instant::now() < until {
        let mut ready: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        poll(&mut ready, Some(&patience)).expect("sockets can be waited for");
        let waiting: Vec<bool> =
            ready.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect();
        for (socket, _) in sockets.iter().zip(waiting).filter(|(_, waiting)| *waiting) {
            while let Ok((_, from)) = socket.recv_from(&mut packet) {
                ears.entry(from).or_default().hears(Instant::now());
            }
        }
    }
    ears
}

/// Whether all of so many calls keep their rhythm, but for one packet in a thousand.
fn holds(stand: &mut Stand, place: &Place, calls: usize) -> bool {
    const SECONDS: u64 = 5;
    let time = Duration::from_secs(SECONDS + 1);
    let (heard, made) = playing(stand, place, calls, time, |stand| listen(stand, place, SECONDS));
    let due = calls as f64 * SECONDS as f64 / RHYTHM;
    println!(
        "   {calls} calls{}: {:.0} % of the packets, {:.2} of 1000 late",
        if made { "" } else { ", which sipp did not make" },
        heard.packets as f64 / due * 100.0,
        heard.gaps
    );
    made && heard.calls == calls && heard.gaps <= 1.0 && heard.packets as f64 >= 0.98 * due
}

/// How many calls this machine holds: to within an eighth.
fn most(stand: &mut Stand, place: &Place) -> usize {
    let (mut held, mut step) = (0, 100);
    while held + step <= CALLS_MAX && holds(stand, place, held + step) {
        held += step;
        step = held;
    }
    let least = (held / 8).max(10);
    loop {
        step /= 2;
        if step < least {
            return held;
        }
        if held + step <= CALLS_MAX && holds(stand, place, held + step) {
            held += step;
        }
    }
}

/// Calls a second that are completed, so many at a time.
fn complete(stand: &mut Stand, folder: &Folder, count: u32) -> f64 {
    folder.write("short.xml", scenario(Duration::ZERO));
    let (number, at_once) = (count.to_string(), "20");
    let started = Instant::now();
    let done = sipp(
        stand,
        folder,
        "short.xml",
        "short",
        &["-m", &number, "-l", at_once, "-r", "2000", "-timeout", "180s"],
    )
    .status()
    .expect("sipp can be started");
    assert!(done.success(), "sipp made its calls: {done}");
    f64::from(count) / started.elapsed().as_secs_f64()
}

fn sink(name: &str, port: u16) -> String {
    format!(
        "<sink name=\"{name}\" type=\"amqp\" events=\"ALL\">\
         <param name=\"url\" value=\"amqp://guest:guest@127.0.0.1:{port}/%2f\"/><param name=\"exchange\" value=\"bench\"/></sink>"
    )
}

/// Measures all of them in turn, a different one first in each round, and puts what `measure` found where it belongs. Each time the
/// broker is away another sink waits for it: what waits is read at a load, and nobody's measurement is to have that in it.
fn in_turn<T>(
    stand: &mut Stand,
    (port, rounds): (u16, usize),
    mut measure: impl FnMut(&mut Stand) -> T,
    mut put: impl FnMut(usize, T),
) {
    for round in 0..rounds {
        for turn in 0..CASES.len() {
            let case = (round + turn) % CASES.len();
            let found = match case {
                0 | 1 => measure(stand),
                2 => stand.with(Candidate::Floor, &mut measure),
                3 => stand.with_module(&sink("out", port), |stand| {
                    connected(stand);
                    measure(stand)
                }),
                // Nobody listens there.
                _ => {
                    let away = sink(&format!("away{round}"), free_port());
                    stand.with_module(&away, &mut measure)
                }
            };
            put(case, found);
        }
    }
}

pub fn run(effort: Effort, results: &mut Results) {
    let sipp = in_path("sipp").map(|_| ()).ok_or_else(|| {
        Missing::new("sipp is not installed", "apt-get install sip-tester, or make setup")
    });
    if skips::unless("bench quality", sipp).is_none() {
        return;
    }
    let may = Command::new("chrt").args(["--fifo", "1", "true"]).status();
    let may = may.is_ok_and(|done| done.success()).then_some(()).ok_or_else(|| {
        Missing::new("no thread may come before all others", "run as root, with util-linux")
    });
    if skips::unless("bench quality", may).is_none() {
        return;
    }
    let Some(broker) = skips::unless("bench quality", RabbitMq::start()) else { return };
    results.fact("rabbitmq", broker.version());
    let Some(mut stand) = skips::unless("bench quality", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    let mut client = PlainAmqp::connect(broker.port());
    client.bound_queue("quality", "bench", &[]);
    let place = Place::new();
    let there = sink("out", broker.port());
    let calls =
        if effort.short { 40 } else { stand.with_module(&there, |stand| most(stand, &place)) };
    let port = broker.port();
    client.purge("quality");
    assert!(calls > 0, "this machine holds no hundred calls");
    // So many short calls that one whose packet is lost, and sent again after half a second, is not what the last of them waits for.
    let (seconds, short) = if effort.short { (2, 300) } else { (4, 3_000) };
    let rounds = if effort.short { 3 } else { effort.rounds * 3 };
    let mut found: [Found; CASES.len()] = Default::default();
    // The same calls play in all rounds: which of them fall on the same millisecond is the most of what their rhythm is.
    for (at, calls) in [calls, calls / 2].into_iter().enumerate() {
        let time = Duration::from_secs((rounds * CASES.len()) as u64 * (seconds + 4));
        let ((), made) = playing(&mut stand, &place, calls, time, |stand| {
            in_turn(
                stand,
                (port, rounds),
                |stand| listen(stand, &place, seconds),
                |case, heard| {
                    assert!(heard.calls == calls, "{} of {calls} calls play", heard.calls);
                    found[case].playing[at].jitter.push(heard.jitter);
                    found[case].playing[at].gaps.push(heard.gaps);
                    client.purge("quality");
                },
            );
        });
        assert!(made, "sipp makes as many calls as before");
    }
    in_turn(
        &mut stand,
        (port, rounds),
        |stand| complete(stand, &place.folder, short),
        |case, rate| {
            found[case].rate.push(rate);
            client.purge("quality");
        },
    );
    report(&found, calls, results);
}

fn report(found: &[Found; CASES.len()], calls: usize, results: &mut Results) {
    let [without, others @ ..] = found;
    for (at, calls) in [calls, calls / 2].into_iter().enumerate() {
        let case = format!("{calls} calls with RTP, {EVENTS} events/s");
        for (name, found) in CASES.iter().zip(found) {
            let playing = &found.playing[at];
            let jitter = playing.jitter.map(|s| s * 1e6);
            results.figure(&format!("jitter, {name}"), &case, "us", &jitter);
            results.figure(&format!("late packets, {name}"), &case, "of 1000", &playing.gaps);
        }
        for (name, other) in CASES.iter().skip(1).zip(others) {
            let what = format!("jitter, {name} / without");
            results.ratio(&what, &case, &other.playing[at].jitter, &without.playing[at].jitter);
            // And as what a listener's buffer has to even out, of the time of a packet.
            let more = other.playing[at].jitter.less(&without.playing[at].jitter);
            let share = more.map(|seconds| seconds / RHYTHM * 100.0);
            results.figure(
                &format!("jitter, {name}, more than without"),
                &case,
                "% of a packet's time",
                &share,
            );
        }
    }
    for (name, found) in CASES.iter().zip(found) {
        results.figure(&format!("calls, {name}"), "20 at a time", "calls/s", &found.rate);
    }
    for (name, other) in CASES.iter().skip(1).zip(others) {
        let inverse = |series: &Series| series.map(|rate| 1.0 / rate);
        let what = format!("time for a call, {name} / without");
        results.ratio(&what, "20 at a time", &inverse(&other.rate), &inverse(&without.rate));
    }
}
