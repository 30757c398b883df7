//! Error rates of the oracle, measured on answers judged by hand.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use serde::Deserialize;
use wsd_lab::world::Item;

/// Answers to one item, judged by people.
#[derive(Deserialize)]
struct Case {
    item: Item,
    good: Vec<String>,
    bad: Vec<String>,
}

fn cases() -> Vec<Case> {
    include_str!("oracle/cases.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Run with `--nocapture` to see the rates and every error. The bounds are the measured rates: the
/// oracle rejects a few paraphrases and accepts a few answers whose fault is one of meaning only.
#[test]
fn errors_are_few_and_known() {
    let (mut good, mut failed, mut bad, mut passed) = (0, 0, 0, 0);
    for Case { item, good: well, bad: badly } in cases() {
        for (answer, should_pass) in
            well.iter().map(|answer| (answer, true)).chain(badly.iter().map(|answer| (answer, false)))
        {
            let grade = item.grade(answer);
            if grade.pass != should_pass {
                println!("{} {:?}: {answer:?} is graded {:?}", item.id, item.kind, grade.reason);
            }
            if should_pass {
                (good, failed) = (good + 1, failed + usize::from(!grade.pass));
            } else {
                (bad, passed) = (bad + 1, passed + usize::from(grade.pass));
            }
        }
    }
    let rate = |errors: usize, of: usize| 100.0 * errors as f64 / of as f64;
    println!("good answers failed: {failed} of {good} ({:.1} %)", rate(failed, good));
    println!("bad answers passed: {passed} of {bad} ({:.1} %)", rate(passed, bad));
    assert!(good + bad >= 150, "enough to measure by");
    assert!(rate(failed, good) < 8.0 && rate(passed, bad) < 6.0);
}
