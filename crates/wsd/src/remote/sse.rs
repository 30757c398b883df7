//! Server-sent events, as bytes come in.

use super::fault::Fault;

/// The longest event that is taken: a cumulative stream repeats the whole answer in each.
pub(super) const MAX_EVENT_BYTES: usize = 8 << 20;

/// Turns bytes into the data of events.
#[derive(Debug, Default)]
pub(super) struct EventParser {
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    /// The data of an event that has not ended.
    data: Option<Vec<u8>>,
    /// Whether the last byte was a carriage return, which a line feed may belong to.
    returned: bool,
}

impl EventParser {
    /// Take in bytes; gives the data of each event that ends with them.
    ///
    /// # Errors
    /// An event that is too long.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        let mut events = Vec::new();
        for &byte in bytes {
            let joined = std::mem::replace(&mut self.returned, byte == b'\r') && byte == b'\n';
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

    /// The line is complete; gives the event that an empty one ends.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take();
        }
        // Names, ids, retry times and comments are nothing to a reader of data.
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
        fn parts_do_not_matter(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), any::<u8>()], 0..200),
                               cut in 0usize..200) {
            let cut = cut.min(bytes.len());
            let text = [b"data: x\r\n\ndata: \xF0\x9F\n\n".as_slice(), &bytes].concat();
            prop_assert_eq!(events(&[&text]), events(&[&text[..cut], &text[cut..]]));
        }
    }
}
