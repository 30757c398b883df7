//! The words of a server at its start.

use std::net::SocketAddr;

use super::app::App;
use crate::models::short_name;
use crate::process;

impl App {
    /// Describes the models, the memory and the address, a line for each.
    #[must_use]
    pub fn report(&self, address: SocketAddr) -> Vec<String> {
        let models = self.models.iter().map(|(seat, engine)| {
            let card = engine.card();
            let (name, context, vocabulary) = (short_name(&card.name), card.max_len, card.vocab);
            format!("{seat}: {name}, context of {context} tokens, vocabulary of {vocabulary}")
        });
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
