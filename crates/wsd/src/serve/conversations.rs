//! Conversations that a later request may go on from, kept in memory within a bound.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::client::Client;

/// The most bytes of all kept conversations, as JSON.
const MAX_BYTES: usize = 64 << 20;
/// The most bytes of one.
const MAX_ONE: usize = 4 << 20;

/// The kept conversations, the oldest first.
#[derive(Default)]
pub(super) struct Conversations(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    conversations: VecDeque<Conversation>,
    bytes: usize,
}

struct Conversation {
    client: Client,
    id: String,
    /// The messages in the form of chat completions.
    messages: Vec<Value>,
    bytes: usize,
}

impl Conversations {
    /// Keeps the conversation that ends with response `id`. The oldest ones make room.
    pub(super) fn keep(&self, client: Client, id: &str, messages: Vec<Value>) {
        let bytes = messages.iter().map(|message| message.to_string().len()).sum();
        if bytes > MAX_ONE {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.conversations.push_back(Conversation { client, id: id.to_owned(), messages, bytes });
        while kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.conversations.pop_front() else { return };
            kept.bytes -= oldest.bytes;
        }
    }

    /// Returns the conversation that ended with response `id` of the same client.
    pub(super) fn find(&self, client: Client, id: &str) -> Option<Vec<Value>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = kept.conversations.iter().rev().filter(|one| one.client == client && one.id == id);
        found.next().map(|one| one.messages.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_conversation_is_its_clients_own() {
        let store = Conversations::default();
        store.keep(Client::Key(0), "a", vec![json!("hello")]);
        assert_eq!(store.find(Client::Key(0), "a"), Some(vec![json!("hello")]));
        assert_eq!(store.find(Client::Key(1), "a"), None);
        assert_eq!(store.find(Client::Key(0), "b"), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let store = Conversations::default();
        let long = vec![json!("x".repeat(MAX_ONE - 2))];
        for index in 0..=MAX_BYTES / MAX_ONE {
            store.keep(Client::Unknown, &index.to_string(), long.clone());
        }
        assert_eq!(store.find(Client::Unknown, "0"), None);
        assert!(store.find(Client::Unknown, "1").is_some());
        store.keep(Client::Unknown, "huge", vec![json!("x".repeat(MAX_ONE))]);
        assert_eq!(store.find(Client::Unknown, "huge"), None);
    }
}
