//! Values set in the text of a TOML file, with everything else kept as it is.

/// Sets keys of a section: lines of the section that assign them are replaced, others are added at its
/// head. A section that is missing is added at the end.
pub(super) fn set(text: &str, section: &str, values: &[(&str, String)]) -> String {
    let header = format!("[{section}]");
    let assigns = |line: &str, key: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let added: Vec<String> = values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let (mut lines, mut is_inside, mut is_found) = (Vec::new(), false, false);
    for line in text.lines() {
        let name = line.split('#').next().unwrap_or_default().trim();
        if name.starts_with('[') {
            is_inside = name == header;
        }
        if is_inside && values.iter().any(|(key, _)| assigns(line, key)) {
            continue;
        }
        lines.push(line.to_owned());
        if is_inside && name == header && !is_found {
            is_found = true;
            lines.extend(added.iter().cloned());
        }
    }
    if !is_found {
        if lines.last().is_some_and(|line| !line.is_empty()) {
            lines.push(String::new());
        }
        lines.push(header);
        lines.extend(added);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_lines_stay_as_they_are() {
        let values = [("window", "4".to_owned()), ("threshold", "0.6".to_owned())];
        assert_eq!(set("", "decode", &values), "[decode]\nwindow = 4\nthreshold = 0.6\n");
        let before = "[models]\nbase = \"x\" # [decode]\n\n[decode] # rule\nwindow = 6\n\
                      speculate = \"off\"\n[prompt]\nraw = true\n";
        let after = before.replace("window = 6\n", "window = 4\nthreshold = 0.6\n");
        let after = after.as_str();
        assert_eq!(set(before, "decode", &values), after);
        assert_eq!(set(after, "decode", &values), after);
        assert!(
            set("[models]\nbase = 1\n", "decode", &values)
                .ends_with("base = 1\n\n[decode]\nwindow = 4\nthreshold = 0.6\n")
        );
    }
}
