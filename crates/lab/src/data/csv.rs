//! CSV files (RFC 4180).

/// Splits a text into records, each with the line on which it begins, from 1; empty records are left
/// out.
///
/// ```
/// let records = wsd_lab::data::csv_records("id,text\n1,\"a, \"\"b\"\"\nc\"\n").unwrap();
/// assert_eq!(records[1], (2, vec!["1".to_owned(), "a, \"b\"\nc".to_owned()]));
/// ```
///
/// # Errors
/// The line on which a quoted field without an end begins.
pub fn csv_records(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut start, mut opened) = (1, 1, None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match (c, opened) {
            ('"', Some(_)) if chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            ('"', Some(_)) => opened = None,
            ('"', None) if field.is_empty() => opened = Some(line),
            (',', None) => record.push(std::mem::take(&mut field)),
            ('\r', None) if chars.peek() == Some(&'\n') => {}
            ('\n', None) => {
                record.push(std::mem::take(&mut field));
                records.push((start, std::mem::take(&mut record)));
                start = line;
            }
            _ => field.push(c),
        }
    }
    if let Some(line) = opened {
        return Err(line);
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push((start, record));
    }
    records.retain(|(_, record)| record.iter().any(|field| !field.is_empty()));
    Ok(records)
}
