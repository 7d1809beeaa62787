//! What inspectors cost: bytes a second of each alone and of all at the default levels, the time for one head, and requests
//! through a session with them and without. Printed, not asserted: `cargo xtask bench --only inspect`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::inspect::{Chain, Destination};
use hyper::Request;
use hyper::body::Bytes;
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
    ]
}

fn body(chain: &Arc<Chain>, text: &[u8]) -> f64 {
    let request = Request::post("/").header("content-type", "application/json");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let pieces: Vec<Bytes> = text.chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
    let mut flags = Vec::new();
    let began = Instant::now();
    let mut stream = chain.body(&parts.headers, &to(), &mut flags).unwrap();
    for piece in pieces {
        stream.push(piece, &mut flags).unwrap();
    }
    stream.finish(&mut flags).unwrap();
    text.len() as f64 / began.elapsed().as_secs_f64() / 1e6
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
        "\n| inspector | one head | {} |",
        bodies().iter().map(|b| b.0).collect::<Vec<_>>().join(" | ")
    );
    for (name, chain) in chains() {
        let head = median((0..ROUNDS).map(|_| head(&chain)).collect());
        let rates: Vec<String> = bodies()
            .iter()
            .map(|(_, text)| {
                let rates = (0..ROUNDS).map(|_| body(&chain, text)).collect();
                format!("{:.0} MB/s", median(rates))
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
