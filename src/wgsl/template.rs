//! Filling a skeleton: regions between `//#` lines are replaced or repeated, everything else stays.
//!
//! - `//#bindings`, `//#knobs`, `//#slot` and others ... `//#end`: replaced by the renderer's text. What stands there
//!   makes the raw file valid WGSL.
//! - `//#each x COUNT` ... `//#end`: repeated for x = 0, 1, .. below COUNT; in the i-th copy the part `x0` of
//!   every identifier becomes `xi` (`sum_m0_n0` within `each m` gives `sum_m1_n0`). A region that is replaced may have
//!   such a part in its name, too, and so a text of its own in each copy.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The texts of the replaced regions and the counts of the repeated ones.
#[derive(Default)]
pub struct Fill {
    /// Text by region, as `slot`.
    pub regions: BTreeMap<String, String>,
    /// Copies by count name, as `MICRO_M`.
    pub counts: BTreeMap<&'static str, usize>,
}

/// The copy at hand of each repeated region around a line: its variable and its number.
type Copies<'a> = Vec<(&'a str, String)>;

/// The skeleton with its regions filled. `name` is its file, for messages.
pub fn fill(name: &str, skeleton: &str, fill: &Fill) -> Result<String> {
    let lines: Vec<&str> = skeleton.lines().collect();
    let mut out = String::with_capacity(skeleton.len() * 4);
    block(name, &lines, fill, &mut Copies::new(), &mut out)?;
    Ok(out)
}

fn block<'a>(
    name: &str,
    lines: &[&'a str],
    fill: &Fill,
    copies: &mut Copies<'a>,
    out: &mut String,
) -> Result<()> {
    let mut i = 0;
    while i < lines.len() {
        let Some(directive) = lines[i].trim_start().strip_prefix("//#") else {
            rename(lines[i], copies, out);
            out.push('\n');
            i += 1;
            continue;
        };
        let end = i + 1 + length(name, &lines[i + 1..])?;
        let body = &lines[i + 1..end];
        let mut words = directive.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("each"), Some(variable), Some(count)) => {
                let count = fill.counts.get(count).copied();
                let count =
                    count.ok_or_else(|| Error::parse(name, format!("no count for //#{directive}")))?;
                for index in 0..count {
                    copies.push((variable, index.to_string()));
                    block(name, body, fill, copies, out)?;
                    copies.pop();
                }
            }
            (Some(region), None, None) => {
                let mut copy = String::new();
                rename(region, copies, &mut copy);
                let text = fill.regions.get(&copy);
                out.push_str(text.ok_or_else(|| Error::parse(name, format!("no text for //#{copy}")))?);
            }
            _ => return Err(Error::parse(name, format!("line {}: unknown directive //#{directive}", i + 1))),
        }
        i = end + 1;
    }
    Ok(())
}

/// Lines up to the `//#end` that closes the region.
fn length(name: &str, lines: &[&str]) -> Result<usize> {
    let mut depth = 0;
    for (i, line) in lines.iter().enumerate() {
        match line.trim_start().strip_prefix("//#") {
            Some("end") if depth == 0 => return Ok(i),
            Some("end") => depth -= 1,
            Some(_) => depth += 1,
            None => {}
        }
    }
    Err(Error::parse(name, "a //# region is not closed"))
}

/// Appends `text`, with the zero of every part `{variable}0` of its identifiers replaced by the copy's number.
fn rename(text: &str, copies: &Copies, out: &mut String) {
    let in_part = |i: usize| text.as_bytes().get(i).is_some_and(u8::is_ascii_alphanumeric);
    let mut done = 0;
    for (zero, _) in text.match_indices('0').filter(|(zero, _)| !in_part(zero + 1)) {
        let start = (0..zero).rev().find(|&i| !in_part(i)).map_or(0, |i| i + 1);
        if let Some((_, number)) = copies.iter().find(|(variable, _)| *variable == &text[start..zero]) {
            out.push_str(&text[done..zero]);
            out.push_str(number);
            done = zero + 1;
        }
    }
    out.push_str(&text[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_replaced_and_repeated() {
        let skeleton =
            "//#knobs\nold\n//#end\n//#each m M\n//#each n N\nsum_m0_n0 = m0 + am0;\n//#end\n//#end\n";
        let filled = fill(
            "test",
            skeleton,
            &Fill { regions: [("knobs".into(), "new\n".into())].into(), counts: [("M", 2), ("N", 1)].into() },
        );
        assert_eq!(filled.unwrap(), "new\nsum_m0_n0 = m0 + am0;\nsum_m1_n0 = m1 + am0;\n");
    }

    #[test]
    fn faults_are_named() {
        for (skeleton, wanted) in [
            ("//#knobs\n", "not closed"),
            ("//#slot\n//#end\n", "no text for //#slot"),
            ("//#each m M\n//#end\n", "no count for //#each m M"),
        ] {
            let error = fill("x.wgsl", skeleton, &Fill::default()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
