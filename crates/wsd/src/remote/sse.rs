//! An incremental parser of server-sent events.

use super::fault::Fault;

/// Longest event accepted. A cumulative stream repeats the whole answer in each event.
pub(super) const MAX_EVENT_BYTES: usize = 8 << 20;

/// Turns chunks of bytes into the data of events.
#[derive(Debug, Default)]
pub(super) struct EventParser {
    /// The current line so far.
    line: Vec<u8>,
    /// The data of the current event so far; `None` before its first `data:` line.
    data: Option<Vec<u8>>,
    /// The last byte was a carriage return, so a line feed that follows belongs to it.
    after_return: bool,
}

impl EventParser {
    /// Consumes bytes and returns the data of each event that they complete.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] for an event of more than [`MAX_EVENT_BYTES`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        let mut events = Vec::new();
        for &byte in bytes {
            let joined = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if joined => {}
                b'\r' | b'\n' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > MAX_EVENT_BYTES {
                return Err(Fault::too_long("an event", MAX_EVENT_BYTES));
            }
        }
        Ok(events)
    }

    /// Ends the current line. An empty one ends the event, whose data is returned.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take();
        }
        // Event names, ids, retry times and comments are skipped.
        if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            match &mut self.data {
                Some(before) => {
                    before.push(b'\n');
                    before.extend_from_slice(data);
                }
                None => self.data = Some(data.to_vec()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(parts: &[&[u8]]) -> Vec<String> {
        let mut parser = EventParser::default();
        let events = parts.iter().flat_map(|part| parser.push(part).unwrap());
        events.map(|event| String::from_utf8_lossy(&event).into_owned()).collect()
    }

    #[test]
    fn lines_comments_and_fields() {
        let text = b": hello\n\nevent: x\ndata: a\ndata:b\r\n\r\nid: 1\n\ndata: [DONE]\r\rdata: never ended";
        assert_eq!(events(&[text]), ["a\nb", "[DONE]"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = EventParser::default();
        let mebibyte = vec![b'x'; 1 << 20];
        assert!((0..20).any(|_| parser.push(&mebibyte).is_err()));
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_matter(
            bytes in prop::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), any::<u8>()],
                0..200,
            ),
            cut in 0usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let text = [b"data: x\r\n\ndata: \xF0\x9F\n\n".as_slice(), &bytes].concat();
            prop_assert_eq!(events(&[&text]), events(&[&text[..cut], &text[cut..]]));
        }
    }
}
