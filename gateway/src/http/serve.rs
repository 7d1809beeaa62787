//! One client connection that speaks HTTP: who answers its requests (the upstream, a page that says why not, or the
//! internal page), and what is said when the framer refused. Called by `connection`.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::body::BodyError;
use super::forward::Forward;
use super::framer::{Framer, Refused};
use super::guard::{Guard, Refusals};
use super::h2;
use super::head::{Authority, Scheme};
use super::page::{self, Blocked, Form, Page};
use super::websocket::{Handover, Key, Switched};
use crate::connection::{Shared, linger};
use crate::events;
use crate::limits;
use crate::relay::{Carried, Patience, rested};
use crate::state::{Denied, Entry, Granted, Intent};
use crate::sys;
use crate::wire::Wire;
use api::v1::Flow;
use audit::Verdict;

pub type Body = BoxBody<Bytes, BodyError>;

/// Who answers.
pub enum Site {
    Upstream(Box<Forward>),
    Denied(Denied),
    Internal,
}

/// What all requests of one client connection share.
pub struct Client {
    pub shared: Arc<Shared>,
    pub intent: Intent,
    pub flow: Flow,
    /// What every request has to name.
    pub authority: Authority,
    /// Whether the client speaks HTTP/2.
    pub h2: bool,
    pub refusals: Refusals,
    switched: Mutex<Option<Switched>>,
}

impl Client {
    /// The upstream has switched: once the client has its 101, the two are connected.
    fn switch(&self, switched: Switched) {
        *self.lock() = Some(switched);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Switched>> {
        self.switched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site {
    pub fn upstream(granted: Granted, entry: Arc<Entry>, shared: &Shared) -> Self {
        let forward = Forward::new(granted, entry, Arc::clone(&shared.pool));
        Self::Upstream(Box::new(forward))
    }

    fn rule(&self) -> Option<&audit::Rule> {
        match self {
            Self::Upstream(forward) => Some(&forward.granted.rule),
            Self::Denied(denied) => denied.rule.as_ref(),
            Self::Internal => None,
        }
    }
}

/// A connection that HTTP is to be served on.
pub struct Visit {
    pub shared: Arc<Shared>,
    pub intent: Intent,
    pub flow: Flow,
    pub scheme: Scheme,
    pub site: Site,
    pub carried: Arc<Carried>,
}

/// Serves requests until the client has no more, something is refused, or nothing moves for too long.
pub async fn serve<W: Wire>(stream: W, visit: Visit, h2: bool) -> &'static str {
    let Visit {
        shared,
        intent,
        flow,
        scheme,
        site,
        carried,
    } = visit;
    let client = Arc::new(Client {
        authority: intent.authority(scheme),
        shared,
        intent,
        flow,
        h2,
        refusals: Refusals::default(),
        switched: Mutex::default(),
    });
    let site = Arc::new(site);
    if h2 {
        h2::serve(stream, client, site, carried).await
    } else {
        serve_one(stream, client, site, carried).await
    }
}

/// HTTP/1: one request after the other.
async fn serve_one<W: Wire>(
    stream: W,
    client: Arc<Client>,
    site: Arc<Site>,
    carried: Arc<Carried>,
) -> &'static str {
    let patience = client.shared.patience;
    let framer = Framer::new(client.authority.clone());
    let refusals = client.refusals.clone();
    let guard = Guard::new(stream, framer, refusals, Arc::clone(&carried));
    let service = {
        let (client, site) = (Arc::clone(&client), Arc::clone(&site));
        service_fn(move |request: Request<Incoming>| {
            let (client, site) = (Arc::clone(&client), Arc::clone(&site));
            Box::pin(async move { Ok::<_, Infallible>(answer(&client, &site, request).await) })
        })
    };
    let mut connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_DEADLINE)
        .max_headers(limits::HTTP_HEADERS)
        .max_buf_size(limits::HTTP_BUFFER)
        .serve_connection(TokioIo::new(guard), service);
    let result = tokio::select! {
        biased;
        result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(result),
        () = rested(&carried, patience) => None,
        () = notice(&site, &carried, patience) => None,
    };
    let (mut stream, early) = connection.into_parts().io.into_inner().into_parts();
    match (client.refusals.take(), result) {
        (Some(refused), _) => {
            let page = refuse(&client, &site, &refused);
            linger(stream, &page.raw()).await;
            refused.refusal.code()
        }
        (None, Some(Ok(()))) => {
            let switched = client.lock().take();
            if let Some(switched) = switched {
                let pipes = &client.shared.pipes;
                return switched
                    .carry(stream, early, &carried, pipes, patience)
                    .await;
            }
            linger(stream, b"").await;
            "closed"
        }
        // The guard resets: a response that broke off must not look whole.
        (None, Some(Err(_))) => "reset",
        (None, None) => {
            stream.disarm();
            "idle-timeout"
        }
    }
}

/// Sees to it that there is less patience with a client that has closed its side: it may only have no more to ask, or be gone,
/// and hyper does not look while an answer is awaited. Does not return.
async fn notice(site: &Site, carried: &Carried, patience: Patience) {
    if let Site::Upstream(forward) = site {
        while !sys::is_hung_up(forward.socket()) {
            tokio::time::sleep(patience.tick).await;
        }
        carried.half_close();
    }
    std::future::pending().await
}

async fn answer(client: &Client, site: &Site, request: Request<Incoming>) -> Response<Body> {
    let asked = Key::of(request.headers()).is_some();
    let mut response = respond(client, site, request).await;
    if let Some(switched) = Handover::take(&mut response) {
        client.switch(switched);
    }
    // Whatever follows a request for WebSocket is no request.
    if asked && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

pub async fn respond(client: &Client, site: &Site, request: Request<Incoming>) -> Response<Body> {
    let form = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .map_or(Form::Text, Form::accepted);
    let recorded = recorded(client, &request);
    match site {
        Site::Upstream(forward) => forward.request(client, request, recorded, form).await,
        Site::Denied(denied) => {
            let event = events::request(
                &client.intent,
                denied.rule.as_ref(),
                Verdict::Deny,
                denied.code,
                client.authority.scheme,
                Some(&recorded),
            );
            client.shared.lane.post_denial(&event, Some(client.flow));
            let why = match denied.code {
                "denied-by-rule" => "a rule denies it",
                "port-not-listed" => "rules name this host, but not at this port",
                "beyond-ceiling" => "an organisation's policy does not allow it",
                "not-asked" => "a person would be asked, and nobody is",
                "protocol-conflict" => "rules ask for wires that exclude one another",
                _ => "no rule names this host",
            };
            page_response(page::blocked(
                Blocked {
                    status: 403,
                    code: denied.code,
                    host: &client.intent.place.to_string(),
                    port: client.intent.port,
                    rule: denied.rule.as_ref(),
                    why,
                },
                form,
            ))
        }
        Site::Internal => {
            let state = &client.shared.state;
            page_response(page::internal(
                &state.active(),
                &state.denials(),
                &state.waiting(),
                form,
            ))
        }
    }
}

/// Records what the framer refused and makes its page.
pub fn refuse(client: &Client, site: &Site, refused: &Refused) -> Page {
    let code = refused.refusal.code();
    let request = refused.request_line.as_deref().map(|line| {
        let mut words = line.splitn(3, ' ');
        events::Request {
            method: events::bounded(words.next().unwrap_or_default(), 32),
            url: events::redact(words.next().unwrap_or_default()),
            credential: None,
            held: None,
        }
    });
    let mut event = events::request(
        &client.intent,
        site.rule(),
        Verdict::Deny,
        code,
        client.authority.scheme,
        request.as_ref(),
    );
    event.detail = Some(refused.refusal.to_string());
    event.status = Some(refused.refusal.status());
    client.shared.lane.post_denial(&event, Some(client.flow));
    client.shared.state.denied(
        client.intent.place.to_string(),
        Some(client.intent.port),
        code,
    );
    page::blocked(
        Blocked {
            status: refused.refusal.status(),
            code,
            host: &client.intent.place.to_string(),
            port: client.intent.port,
            rule: site.rule(),
            why: &refused.refusal.to_string(),
        },
        Form::Text,
    )
}

fn recorded(client: &Client, request: &Request<Incoming>) -> events::Request {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("*", |target| target.as_str());
    let authority = &client.authority;
    let scheme = authority.scheme.as_str();
    events::Request {
        method: events::bounded(request.method().as_str(), 32),
        url: events::redact(&format!("{scheme}://{authority}{target}")),
        credential: None,
        held: None,
    }
}

/// No body at all.
pub fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A page as a response.
pub fn page_response(page: Page) -> Response<Body> {
    let body = Full::new(Bytes::from(page.body))
        .map_err(|never| match never {})
        .boxed();
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(page.form.content_type()),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'"),
    );
    if let Some(code) = page.code {
        headers.insert(page::BLOCKED_HEADER, HeaderValue::from_static(code));
    }
    response
}
