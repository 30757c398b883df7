//! The words of a server at its start.

use std::net::SocketAddr;
use std::sync::Arc;

use wsd_core::Engine;

use super::app::App;
use crate::config::BUILTIN;
use crate::models::describe;
use crate::process;

impl App {
    /// Describes the built-in models, the memory and the address, a line for each. Other models were
    /// described when they were loaded.
    #[must_use]
    pub fn report(&self, address: SocketAddr) -> Vec<String> {
        let is_builtin = |(_, engine): &(_, &Arc<dyn Engine>)| engine.card().name.starts_with(BUILTIN);
        let models = self.models.iter().filter(is_builtin).map(|(seat, engine)| describe(seat, engine.as_ref()));
        let (slots, queue) = (self.admission.max_concurrent(), self.serve.max_queue);
        let memory = process::read()
            .map_or_else(String::new, |usage| format!("{} MB of memory in use, ", usage.resident_bytes / 1_000_000));
        let limits = format!("{memory}answers: up to {slots} at a time, up to {queue} may wait");
        let access = if self.keys.is_empty() { "no key is needed" } else { "the key is the password in a browser" };
        let last = [
            limits,
            format!("page: http://{address}/ ({access}), API: http://{address}/v1, routes: /openapi.json"),
            format!("listening on http://{address}"),
        ];
        models.chain(last).collect()
    }
}
