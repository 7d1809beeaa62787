//! What inspectors cost: bytes a second of each alone and of all at the default levels, the time for one head, and requests
//! through a session with them and without; where valgrind counts, instructions a byte too, which say the same on a machine
//! that is busy. Printed, not asserted: `cargo xtask bench --only inspect`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::inspect::{Chain, Destination, Field, Scanner};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use schema::inspection::Inspector;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::*;
use crate::http::{OK, answering, read_response};

const SIZE: usize = 4 << 20;
const ROUNDS: usize = 5;

fn to() -> Destination {
    Destination {
        name: Some("api.example.com".parse().unwrap()),
        tls: true,
    }
}

/// Levels by name, the others off.
fn levels(on: &[Inspector], level: &str) -> policy::Inspection {
    let all = Inspector::ALL.map(|inspector| {
        let level = if on.contains(&inspector) {
            level
        } else {
            "off"
        };
        (inspector.as_str(), level)
    });
    PolicyBuilder::default().inspect(&all).inspection
}

fn chains() -> Vec<(String, Arc<Chain>)> {
    let chain = |levels| Arc::new(Chain::new(&levels, Vec::new()));
    let mut out: Vec<_> = Inspector::ALL
        .iter()
        .map(|one| (one.as_str().to_owned(), chain(levels(&[*one], "block"))))
        .collect();
    let defaults = chain(policy::Inspection::default());
    out.push(("the default levels".to_owned(), defaults));
    out.push((
        "all four".to_owned(),
        chain(levels(&Inspector::ALL, "flag")),
    ));
    out
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    use base64::Engine as _;
    let source = concat!(
        include_str!("corpus.rs"),
        include_str!("harness.rs"),
        include_str!("https.rs")
    );
    let fill = |text: &[u8]| text.iter().copied().cycle().take(SIZE).collect::<Vec<u8>>();
    // What no inspector stops: a body that is stopped costs nothing more.
    let chain = Arc::new(Chain::new(&levels(&Inspector::ALL, "block"), Vec::new()));
    let passes = |line: &&str| {
        let mut scanner = Scanner::new(Arc::clone(&chain), Field::Body, to());
        scanner.push(line.as_bytes(), &mut Vec::new()).is_ok()
            && scanner.finish(&mut Vec::new()).is_ok()
    };
    let source = source.lines().filter(passes).collect::<Vec<_>>().join("\n");
    let json = serde_json::json!({ "content": source }).to_string();
    let mut state = 7u64;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
    .take(SIZE)
    .collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode(&random[..SIZE / 4 * 3]);
    vec![
        ("source code in JSON", fill(json.as_bytes())),
        ("Base64", encoded.into_bytes()),
        ("random bytes", random),
        ("zeros", vec![0; SIZE]),
    ]
}

fn json() -> Request<()> {
    let request = Request::post("/").header("content-type", "application/json");
    request.body(()).unwrap()
}

fn body(chain: &Arc<Chain>, text: &[u8]) -> f64 {
    let (parts, ()) = json().into_parts();
    let pieces: Vec<Bytes> = text.chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
    let began = Instant::now();
    looked_through(chain, &parts.headers, pieces);
    text.len() as f64 / began.elapsed().as_secs_f64() / 1e6
}

fn looked_through(chain: &Arc<Chain>, headers: &HeaderMap, pieces: Vec<Bytes>) {
    let mut flags = Vec::new();
    let mut stream = chain.body(headers, &to(), &mut flags).unwrap();
    for piece in pieces {
        stream.push(piece, &mut flags).unwrap();
    }
    stream.finish(&mut flags).unwrap();
}

/// Instructions a byte of that inspector with that body, by this test itself under callgrind; `None`: there is no valgrind.
fn instructions(inspector: &str, text: &str) -> Option<f64> {
    let out = std::process::Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*cost*counted*")
        .arg(std::env::current_exe().ok()?)
        .args(["--ignored", "--exact", "cost::one_body"])
        .env(ONE, format!("{inspector};{text}"))
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let count: f64 = count?.1.trim().parse().ok()?;
    Some(count / COUNTED as f64)
}

/// Which inspector and which body [`one_body`] is about.
const ONE: &str = "AGENTCONTAINER_COST_OF";
const COUNTED: usize = 1 << 20;

#[test]
#[ignore = "counted by cost_of_inspectors"]
fn one_body() {
    let Ok(one) = std::env::var(ONE) else { return };
    let (name, text) = one.split_once(';').unwrap();
    let chain = chains()
        .into_iter()
        .find(|chain| chain.0 == name)
        .unwrap()
        .1;
    let all = bodies();
    let text = &all.iter().find(|body| body.0 == text).unwrap().1[..COUNTED];
    // Whatever is made once is made before.
    body(&chain, &text[..COUNTED / 16]);
    let (parts, ()) = json().into_parts();
    let pieces = text.chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
    counted(&chain, &parts.headers, pieces);
}

/// What callgrind counts, by this name.
#[inline(never)]
fn counted(chain: &Arc<Chain>, headers: &HeaderMap, pieces: Vec<Bytes>) {
    looked_through(chain, headers, pieces);
}

fn head(chain: &Arc<Chain>) -> f64 {
    const TIMES: u32 = 2000;
    let request = Request::get("/repos/acme/widgets/issues?state=open&per_page=100&page=2")
        .header("host", "api.example.com")
        .header("user-agent", "git/2.39.5")
        .header("accept", "application/vnd.github+json")
        .header("accept-encoding", "gzip, deflate")
        .header("authorization", "Bearer not-a-token-but-as-long-as-one-is")
        .header("x-github-api-version", "2022-11-28");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let mut flags = Vec::new();
    let began = Instant::now();
    for _ in 0..TIMES {
        chain.head(&parts, &to(), &mut flags).unwrap();
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
}

/// Requests a second on one connection that is kept.
async fn requests(port: u16, inspection: policy::Inspection, body: &[u8]) -> f64 {
    let mut policy = crate::http::rule(port);
    policy.inspection = inspection;
    let mut session = Session::start(policy).await;
    let door = session.door("api.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    let request = [
        format!(
            "POST /v1 HTTP/1.1\r\nHost: api.example.com:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
        body,
    ]
    .concat();
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_millis(500) {
        stream.write_all(&request).await.unwrap();
        let answer = read_response(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn cost_of_inspectors() {
    println!(
        "\nBytes a second, and instructions a byte.\n\n| inspector | one head | {} |",
        bodies().iter().map(|b| b.0).collect::<Vec<_>>().join(" | ")
    );
    for (name, chain) in chains() {
        let head = median((0..ROUNDS).map(|_| head(&chain)).collect());
        let rates: Vec<String> = bodies()
            .iter()
            .map(|(kind, text)| {
                let rates = (0..ROUNDS).map(|_| body(&chain, text)).collect();
                let count =
                    instructions(&name, kind).map_or(String::new(), |n| format!(", {n:.1}"));
                format!("{:.0} MB/s{count}", median(rates))
            })
            .collect();
        println!("| {name} | {head:.2} µs | {} |", rates.join(" | "));
    }
    let (port, _) = answering(OK).await;
    for size in [100, 10_000, 200_000] {
        let text = &bodies()[0].1[..size];
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let off = requests(port, levels(&[], "off"), text).await;
            let on = requests(port, policy::Inspection::default(), text).await;
            ratios.push(on / off);
        }
        println!(
            "requests of {size} bytes with inspectors: {:.2} of those without",
            median(ratios)
        );
    }
}
