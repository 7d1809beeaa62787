//! A session's container, from making it to removing it, and the commands that run in it. What is listed, stopped or removed
//! here carries our session label; nothing else of the engine's is touched.

use std::collections::{BTreeMap, HashMap};

use bollard::exec::CreateExecOptions;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder,
    ResizeExecOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use serde::Serialize;

use crate::error::{is_missing, reason};
use crate::request::{Checked, LABEL_NAME, LABEL_SESSION, LABEL_VERSION, LABEL_WORKSPACE};
use crate::stream::{Framing, Input, Output, Request, StreamError, open};
use crate::{Engine, EngineError};

/// A container that was made and not yet started.
#[derive(Clone, Debug)]
pub struct Created {
    pub id: String,
    /// The engine's own words on what it will not do.
    pub warnings: Vec<String>,
}

/// A session's container, as the engine lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub id: String,
    pub session: String,
    pub name: Option<String>,
    pub workspace: String,
    pub version: String,
    pub image: String,
    /// created, running, paused, exited, dead, …
    pub state: String,
    /// Seconds since 1970.
    pub created: i64,
}

/// What exec has to know about the container.
#[derive(Clone, Debug)]
pub struct Inspected {
    pub tty: bool,
    pub running: bool,
    pub exit_code: Option<i64>,
    pub started_at: Option<String>,
}

/// A command to run in a session's container.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// `None`: the container's own user and directory.
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub tty: bool,
    pub stdin: bool,
}

/// Which lines of a container's output.
#[derive(Clone, Copy, Debug)]
pub struct Logs {
    pub follow: bool,
    /// The last so many lines; `None`: all.
    pub tail: Option<u32>,
    pub timestamps: bool,
}

impl Engine {
    fn path(&self, rest: &str) -> String {
        let version = self.docker.client_version();
        format!(
            "/v{}.{}{rest}",
            version.major_version, version.minor_version
        )
    }

    pub async fn create(&self, request: &Checked<'_>) -> Result<Created, EngineError> {
        let options = CreateContainerOptionsBuilder::default()
            .name(&request.container_name())
            .build();
        let made = self
            .docker
            .create_container(Some(options), request.to_model())
            .await
            .map_err(EngineError::api("create the container"))?;
        Ok(Created {
            id: made.id,
            warnings: made.warnings,
        })
    }

    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.docker
            .start_container(container, None::<StartContainerOptions>)
            .await
            .map_err(EngineError::api("start the container"))
    }

    /// Both directions of the container's own program.
    pub async fn attach(
        &self,
        container: &str,
        tty: bool,
        stdin: bool,
    ) -> Result<(Input, Output), EngineError> {
        let request = Request {
            method: "POST",
            path: self.path(&format!(
                "/containers/{container}/attach?stream=1&stdout=1&stderr=1&stdin={}",
                u8::from(stdin)
            )),
            body: None,
            upgrade: true,
        };
        self.stream("attach to the container", container, request, tty)
            .await
    }

    /// Waits until the container is not running, and says how it ended.
    pub async fn wait(&self, container: &str) -> Result<i64, EngineError> {
        let options = WaitContainerOptionsBuilder::default()
            .condition("not-running")
            .build();
        let mut answers = std::pin::pin!(self.docker.wait_container(container, Some(options)));
        match answers.next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            // bollard's word for 'it ended, and not with 0'.
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(e)) => Err(self.api_on("wait for the container", container, e)),
            None => Err(EngineError::Api {
                what: "wait for the container",
                reason: "the connection was closed".to_owned(),
            }),
        }
    }

    pub async fn resize(
        &self,
        container: &str,
        rows: u16,
        columns: u16,
    ) -> Result<(), EngineError> {
        let options = ResizeContainerTTYOptionsBuilder::default()
            .h(i32::from(rows))
            .w(i32::from(columns))
            .build();
        self.docker
            .resize_container_tty(container, options)
            .await
            .map_err(EngineError::api("resize the terminal"))
    }

    pub async fn kill(&self, container: &str, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::default()
            .signal(signal)
            .build();
        match self.docker.kill_container(container, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.api_on("signal the container", container, e)),
        }
    }

    /// Stop signal, `seconds` of patience, SIGKILL. A container that is not running is stopped already.
    pub async fn stop(&self, container: &str, seconds: Option<u32>) -> Result<(), EngineError> {
        let mut options = StopContainerOptionsBuilder::default();
        if let Some(seconds) = seconds {
            options = options.t(i32::try_from(seconds).unwrap_or(i32::MAX));
        }
        match self
            .docker
            .stop_container(container, Some(options.build()))
            .await
        {
            Ok(()) => Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 304, ..
            }) => Ok(()),
            Err(e) => Err(self.api_on("stop the container", container, e)),
        }
    }

    /// Kills it if it runs, and removes it with its anonymous volumes. One that is gone is removed already.
    pub async fn remove(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        match self.docker.remove_container(container, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) if is_missing(&e) => Ok(()),
            Err(e) => Err(EngineError::api("remove the container")(e)),
        }
    }

    /// Every session's container, oldest first, running or not.
    pub async fn sessions(&self) -> Result<Vec<Container>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![LABEL_SESSION.to_owned()])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let listed = self
            .docker
            .list_containers(Some(options))
            .await
            .map_err(EngineError::api("list the containers"))?;
        let mut containers: Vec<_> = listed
            .into_iter()
            .filter_map(|summary| {
                let mut labels = summary.labels.unwrap_or_default();
                Some(Container {
                    id: summary.id?,
                    session: labels.remove(LABEL_SESSION)?,
                    name: labels.remove(LABEL_NAME),
                    workspace: labels.remove(LABEL_WORKSPACE).unwrap_or_default(),
                    version: labels.remove(LABEL_VERSION).unwrap_or_default(),
                    image: summary.image.unwrap_or_default(),
                    state: summary.state.map(|s| s.to_string()).unwrap_or_default(),
                    created: summary.created.unwrap_or_default(),
                })
            })
            .collect();
        containers.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(containers)
    }

    pub async fn inspect(&self, container: &str) -> Result<Inspected, EngineError> {
        let answer = self
            .docker
            .inspect_container(container, None::<InspectContainerOptions>)
            .await
            .map_err(|e| self.api_on("inspect the container", container, e))?;
        let state = answer.state.unwrap_or_default();
        Ok(Inspected {
            tty: answer.config.and_then(|c| c.tty).unwrap_or_default(),
            running: state.running.unwrap_or_default(),
            exit_code: state.exit_code,
            started_at: state.started_at,
        })
    }

    /// What the container wrote, and with `follow` what it goes on to write.
    pub async fn logs(
        &self,
        container: &str,
        tty: bool,
        logs: Logs,
    ) -> Result<Output, EngineError> {
        let tail = logs
            .tail
            .map_or_else(|| "all".to_owned(), |n| n.to_string());
        let request = Request {
            method: "GET",
            path: self.path(&format!(
                "/containers/{container}/logs?stdout=1&stderr=1&follow={}&timestamps={}&tail={tail}",
                u8::from(logs.follow),
                u8::from(logs.timestamps)
            )),
            body: None,
            upgrade: false,
        };
        let (input, output) = self
            .stream("read the container's output", container, request, tty)
            .await?;
        Ok(output.with_open(input))
    }

    /// Prepares a command; nothing runs until `exec_start`.
    pub async fn exec_create(&self, container: &str, exec: &Exec) -> Result<String, EngineError> {
        let options = CreateExecOptions {
            attach_stdin: Some(exec.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(exec.tty),
            env: Some(exec.env.iter().map(|(k, v)| format!("{k}={v}")).collect()),
            cmd: Some(exec.command.clone()),
            user: exec.user.clone(),
            working_dir: exec.working_dir.clone(),
            privileged: Some(false),
            ..Default::default()
        };
        self.docker
            .create_exec(container, options)
            .await
            .map(|made| made.id)
            .map_err(|e| self.api_on("run the command", container, e))
    }

    pub async fn exec_start(&self, id: &str, tty: bool) -> Result<(Input, Output), EngineError> {
        let body = format!("{{\"Detach\":false,\"Tty\":{tty}}}");
        let request = Request {
            method: "POST",
            path: self.path(&format!("/exec/{id}/start")),
            body: Some(&body),
            upgrade: true,
        };
        self.stream("run the command", id, request, tty).await
    }

    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        let options = ResizeExecOptionsBuilder::default()
            .h(i32::from(rows))
            .w(i32::from(columns))
            .build();
        self.docker
            .resize_exec(id, options)
            .await
            .map_err(EngineError::api("resize the terminal"))
    }

    /// How a command ended; `None` while it runs. The second value is its process id as the engine's host sees it.
    pub async fn exec_status(&self, id: &str) -> Result<(Option<i64>, Option<i64>), EngineError> {
        let answer = self
            .docker
            .inspect_exec(id)
            .await
            .map_err(EngineError::api("ask how the command ended"))?;
        let ended = answer.running != Some(true);
        Ok((answer.exit_code.filter(|_| ended), answer.pid))
    }

    async fn stream(
        &self,
        what: &'static str,
        object: &str,
        request: Request<'_>,
        tty: bool,
    ) -> Result<(Input, Output), EngineError> {
        let framing = if tty {
            Framing::Raw
        } else {
            Framing::Multiplexed
        };
        open(&self.endpoint().socket, request, framing)
            .await
            .map_err(|e| match e {
                StreamError::Refused { status: 404, .. } => {
                    EngineError::NoContainer(object.to_owned())
                }
                other => EngineError::Api {
                    what,
                    reason: other.to_string(),
                },
            })
    }

    fn api_on(
        &self,
        what: &'static str,
        container: &str,
        error: bollard::errors::Error,
    ) -> EngineError {
        if is_missing(&error) {
            EngineError::NoContainer(container.to_owned())
        } else {
            EngineError::Api {
                what,
                reason: reason(&error),
            }
        }
    }
}
