//! The connections out that one client connection owns: one of HTTP/2 for all its requests of one credential, or as many of
//! HTTP/1 as it has requests under way, bounded. When it ends, those of HTTP/1 that are at rest go to the session's `pool`,
//! from which the next ones are taken. Used by `http::forward`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor as _;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use schema::net::Protocol;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::body::Counted;
use super::forward::Failure;
use super::pool::{Pool, Use};
use super::serve::Client;
use super::tasks::Tasks;
use crate::connection::record_dropped;
use crate::dial::dial;
use crate::limits;
use crate::state::{Entry, Granted};
use crate::tls::upstream::Leg;

pub struct Upstreams {
    pool: Arc<Pool>,
    inner: Mutex<Inner>,
    /// Until it is known what the upstream speaks, one dials for all.
    dialling: tokio::sync::Mutex<()>,
    /// Requests under way on connections of HTTP/1.
    permits: Arc<Semaphore>,
}

#[derive(Default)]
struct Inner {
    twos: Vec<(Use, Two)>,
    /// Those that rest, and those whose response is still being read.
    ones: Vec<(Use, One)>,
    speaks_one: bool,
}

pub struct One {
    sender: http1::SendRequest<Counted>,
    _driver: Driver,
    /// A descriptor beyond the one that every client connection has for its upstream.
    extra: Option<OwnedSemaphorePermit>,
}

impl One {
    /// Whether it can take a request now: the last response has been read to its end.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub fn holds_permit(&self) -> bool {
        self.extra.is_some()
    }

    pub fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.extra = Some(permit);
    }
}

struct Two {
    sender: http2::SendRequest<Counted>,
    tasks: Arc<Tasks>,
}

/// The task that moves a connection's bytes: it ends with whoever holds this.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection for one request.
pub struct Lease {
    what: Use,
    sender: Sender,
    held: Held,
}

/// What is kept until the response has been read.
#[derive(Default)]
pub struct Held {
    _permit: Option<OwnedSemaphorePermit>,
    /// A connection that takes no more requests ends with the last that is under way on it.
    _tasks: Option<Arc<Tasks>>,
}

enum Sender {
    One(One),
    Two(http2::SendRequest<Counted>),
}

impl Lease {
    pub fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::Two(_))
    }

    pub async fn send(
        &mut self,
        request: Request<Counted>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Counted>>> {
        match &mut self.sender {
            Sender::One(one) => one.sender.try_send_request(request).await,
            Sender::Two(sender) => sender.try_send_request(request).await,
        }
    }

    /// What has to be kept until the response's end.
    pub fn take_held(&mut self) -> Held {
        std::mem::take(&mut self.held)
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (what, one) in inner.ones.drain(..) {
            self.pool.put(what, one);
        }
    }
}

impl Upstreams {
    pub fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            inner: Mutex::default(),
            dialling: tokio::sync::Mutex::new(()),
            permits: Arc::new(Semaphore::new(limits::HTTP1_UPSTREAMS)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under this lock is a single insertion or removal.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that can take a request now: one there is, or a new one. `credentials`: what its requests carry;
    /// `switches`: what it asks for is a switch, which is HTTP/1's.
    pub async fn lease(
        &self,
        client: &Client,
        granted: &Granted,
        entry: &Entry,
        (credentials, switches): (&[String], bool),
    ) -> Result<Lease, Failure> {
        let what = Use {
            intent: client.intent.clone(),
            generation: entry.active.generation,
            credentials: credentials.to_vec(),
        };
        let h2 = client.h2 && !switches;
        if h2 && let Some(lease) = self.two(&what) {
            return Ok(lease);
        }
        // HTTP/1 clients ask one thing at a time; of the others one finds out for all what the upstream speaks.
        let first = if h2 && !self.lock().speaks_one {
            Some(self.dialling.lock().await)
        } else {
            None
        };
        if h2 && let Some(lease) = self.two(&what) {
            return Ok(lease);
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        if let Some(one) = self.rested(&what, client.h2).await {
            return Ok(Lease {
                what,
                sender: Sender::One(one),
                held: Held {
                    _permit: permit,
                    _tasks: None,
                },
            });
        }
        let (sender, tasks) = self.connect(client, granted, entry, (&what, h2)).await?;
        drop(first);
        let held = Held {
            _permit: permit.filter(|_| tasks.is_none()),
            _tasks: tasks,
        };
        Ok(Lease { what, sender, held })
    }

    fn two(&self, what: &Use) -> Option<Lease> {
        let mut inner = self.lock();
        inner.twos.retain(|(_, two)| !two.sender.is_closed());
        let (what, two) = inner.twos.iter().find(|(of, _)| of == what)?;
        Some(Lease {
            what: what.clone(),
            sender: Sender::Two(two.sender.clone()),
            held: Held {
                _permit: None,
                _tasks: Some(Arc::clone(&two.tasks)),
            },
        })
    }

    /// A connection of HTTP/1 that is ready for another request: this client connection's, or one that another has left.
    async fn rested(&self, what: &Use, many: bool) -> Option<One> {
        loop {
            let mut one = {
                let mut inner = self.lock();
                inner.ones.retain(|(_, one)| !one.is_closed());
                let fits = |(of, _): &(Use, One)| of == what;
                let ready = |had: &(Use, One)| fits(had) && had.1.is_ready();
                match inner.ones.iter().position(ready) {
                    Some(at) => inner.ones.swap_remove(at).1,
                    None => {
                        let full = inner.ones.len() >= limits::HTTP1_UPSTREAMS;
                        // The last response has been read, which its driver may not have noticed yet.
                        match inner.ones.iter().position(fits) {
                            Some(at) if !many || full => inner.ones.swap_remove(at).1,
                            // Of another credential, and in the way.
                            None if full => {
                                inner.ones.remove(0);
                                return None;
                            }
                            _ if many => return None,
                            _ => return self.pool.take(what),
                        }
                    }
                }
            };
            if one.sender.ready().await.is_ok() {
                return Some(one);
            }
        }
    }

    async fn connect(
        &self,
        client: &Client,
        granted: &Granted,
        entry: &Entry,
        (what, h2): (&Use, bool),
    ) -> Result<(Sender, Option<Arc<Tasks>>), Failure> {
        let extra = if client.h2 && (!h2 || self.lock().speaks_one) {
            let extra = Arc::clone(&client.shared.extra);
            extra.acquire_owned().await.ok()
        } else {
            None
        };
        let dialled = dial(&client.shared.state, &entry.active, &client.intent)
            .await
            .map_err(Failure::Dial)?;
        record_dropped(
            &client.shared,
            client.flow,
            &client.intent,
            granted,
            dialled.dropped,
        );
        let leg = match granted.protocol {
            Protocol::Https => {
                let roots = &entry.active.roots;
                let place = &client.intent.place;
                let stream = roots.connect(dialled.stream, place, h2).await;
                Leg::Tls(Box::new(stream.map_err(Failure::Tls)?))
            }
            _ => Leg::Plain(dialled.stream),
        };
        if leg.is_h2() {
            let (sender, tasks) = self.speak_two(leg, what).await?;
            Ok((sender, Some(tasks)))
        } else {
            if h2 {
                self.lock().speaks_one = true;
            }
            Ok((speak_one(leg, extra).await?, None))
        }
    }

    async fn speak_two(&self, leg: Leg, what: &Use) -> Result<(Sender, Arc<Tasks>), Failure> {
        let tasks = Tasks::default();
        let starter = tasks.starter();
        let (sender, connection) = http2::Builder::new(starter.clone())
            .timer(TokioTimer::new())
            .max_header_list_size(limits::HTTP_RESPONSE_HEAD as u32)
            .max_send_buf_size(limits::H2_SEND_BUFFER)
            .initial_stream_window_size(limits::H2_STREAM_WINDOW)
            .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
            .handshake(TokioIo::new(leg))
            .await
            .map_err(Failure::Upstream)?;
        starter.execute(async move {
            // Its error comes out of the requests that were under way.
            let _ = connection.await;
        });
        let tasks = Arc::new(tasks);
        let two = Two {
            sender: sender.clone(),
            tasks: Arc::clone(&tasks),
        };
        self.lock().twos.push((what.clone(), two));
        Ok((Sender::Two(sender), tasks))
    }

    /// Takes a connection back whose response began in good order: it takes another request once that was read.
    pub fn give_back(&self, lease: Lease) {
        if let Sender::One(one) = lease.sender {
            self.lock().ones.push((lease.what, one));
        }
    }
}

async fn speak_one(leg: Leg, extra: Option<OwnedSemaphorePermit>) -> Result<Sender, Failure> {
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits::HTTP_RESPONSE_HEADERS)
        .max_header_size(limits::HTTP_RESPONSE_HEAD)
        .max_buf_size(limits::HTTP_BUFFER)
        .handshake(TokioIo::new(leg))
        .await
        .map_err(Failure::Upstream)?;
    let driver = tokio::spawn(async move {
        // Its error comes out of the request that was under way.
        let _ = connection.with_upgrades().await;
    });
    Ok(Sender::One(One {
        sender,
        _driver: Driver(driver.abort_handle()),
        extra,
    }))
}
