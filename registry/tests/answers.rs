//! Registries that answer in pages, or not at all.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use registry::cache::Cache;
use registry::client::{Client, MAX_REFERRER_PAGES, MAX_REFERRERS, Referrers, Repository};
use registry::error::RegistryError;
use registry::http::Settings;
use schema::digest::Digest;
use schema::image::ImageRef;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Pages of so many referrers each; `None` is no answer.
type Pages = Option<Vec<usize>>;

/// A registry that has them; its name.
async fn start(pages: Pages) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, pages.clone()));
        }
    });
    name
}

async fn serve(mut client: TcpStream, pages: Pages) {
    let (mut buffer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            match client.read(&mut piece).await {
                Ok(count @ 1..) => buffer.extend_from_slice(&piece[..count]),
                _ => return,
            }
        }
        let head = String::from_utf8(std::mem::take(&mut buffer)).unwrap();
        let Some(pages) = &pages else {
            tokio::time::sleep(Duration::from_secs(60)).await;
            return;
        };
        let path = head.split(' ').nth(1).unwrap();
        let (path, at) = path.split_once("?at=").unwrap_or((path, "0"));
        let at: usize = at.parse().unwrap();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let entry = |n: usize| {
            let digest = Digest::of(format!("{at} {n}").as_bytes());
            format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":2}}"#)
        };
        let entries: Vec<String> = (0..pages[at]).map(entry).collect();
        let body = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            entries.join(",")
        );
        let link = match at + 1 {
            next if next < pages.len() => format!("Link: <{path}?at={next}>; rel=\"next\"\r\n"),
            _ => String::new(),
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\n{link}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if client.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn client(dir: &TempDir, registry: &str) -> (Client, Repository) {
    let mut settings = Settings::new(Vec::new());
    settings.plain_http = [registry.to_owned()].into();
    settings.logins = Vec::new();
    settings.attempts = 2;
    settings.timeout = Duration::from_millis(300);
    let client = Client::new(settings, Cache::at(dir.path().join("cache")), false).unwrap();
    let reference = ImageRef::parse(&format!("{registry}/app:1")).unwrap();
    (client, Repository::of(&reference))
}

/// How many referrers there are, or why that is not known.
async fn referrers(pages: Vec<usize>) -> Result<usize, RegistryError> {
    let dir = tempfile::tempdir().unwrap();
    let (client, repository) = client(&dir, &start(Some(pages)).await);
    let found = client.referrers(&repository, &Digest::of(b"image")).await?;
    let Referrers::Listed { descriptors, .. } = found else {
        panic!("{found:?}");
    };
    Ok(descriptors.len())
}

#[tokio::test]
async fn referrers_are_those_of_every_page_within_bounds() {
    assert_eq!(referrers(vec![1]).await.unwrap(), 1);
    assert_eq!(referrers(vec![1, 0, 2]).await.unwrap(), 3);
    let most = vec![1; MAX_REFERRER_PAGES];
    assert_eq!(referrers(most.clone()).await.unwrap(), MAX_REFERRER_PAGES);
    assert_eq!(
        referrers(vec![MAX_REFERRERS - 1, 1]).await.unwrap(),
        MAX_REFERRERS
    );
    for beyond in [[most, vec![1]].concat(), vec![MAX_REFERRERS, 1]] {
        let error = referrers(beyond).await.unwrap_err();
        assert_eq!(error.code(), "malformed", "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_waited_for_as_long_as_was_set_and_was_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (client, repository) = client(&dir, &start(None).await);
    let began = Instant::now();
    let error = client.tag(&repository, "1").await.unwrap_err();
    assert_eq!(error.code(), "registry-unreachable", "{error}");
    assert!(error.is_unasked());
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(600) && took < Duration::from_secs(10),
        "{took:?}"
    );
}
