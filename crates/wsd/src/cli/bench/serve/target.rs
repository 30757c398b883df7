//! The target of a load: a server, or the same models in this process.

use anyhow::Result;

use super::client::{Connection, Server};
use super::library::Library;
use super::sample::Sample;

/// A server, or the library.
pub(super) enum Target {
    Server(Server),
    Library(Library),
}

impl Target {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Server(_) => "server",
            Self::Library(_) => "library",
        }
    }

    /// Sends one request and reads its answer to the end.
    pub(super) async fn ask(&self, connection: &mut Option<Connection>, index: usize) -> Result<Sample> {
        match self {
            Self::Server(server) => server.ask(connection, index).await,
            Self::Library(library) => library.ask(index).await,
        }
    }

    /// Processor time that the target has used since its start, if it is known.
    pub(super) async fn processor_seconds(&self) -> Option<f64> {
        match self {
            Self::Server(server) => server.processor_seconds().await,
            Self::Library(_) => Some(wsd::process::read()?.processor_seconds),
        }
    }
}
