//! What differs between two texts, line by line: for a prompt's versions, on the command line and in the console.

/// A line of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// In both.
    Same(&'a str),
    /// In the old text only.
    Old(&'a str),
    /// In the new text only.
    New(&'a str),
}

/// A row of a comparison side by side: what stands left and right; both where the line is the same or was replaced.
pub type Row<'a> = (Option<&'a str>, Option<&'a str>);

/// Beyond this product of line counts the middle is told as replaced whole: comparing it would take seconds, and
/// nobody would read it.
const MOST_WORK: usize = 4_000_000;

/// Compares two texts by their longest common subsequence of lines.
#[must_use]
pub fn diff<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let before = old.iter().zip(&new).take_while(|(o, n)| o == n).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(o, n)| o == n).count();
    let (old_middle, new_middle) = (&old_rest[..old_rest.len() - after], &new_rest[..new_rest.len() - after]);
    let mut lines: Vec<Line<'a>> = old[..before].iter().map(|line| Line::Same(line)).collect();
    middle(old_middle, new_middle, &mut lines);
    lines.extend(old_rest[old_rest.len() - after..].iter().map(|line| Line::Same(line)));
    lines
}

fn middle<'a>(old: &[&'a str], new: &[&'a str], lines: &mut Vec<Line<'a>>) {
    if old.len().saturating_mul(new.len()) > MOST_WORK {
        lines.extend(old.iter().map(|line| Line::Old(line)));
        lines.extend(new.iter().map(|line| Line::New(line)));
        return;
    }
    // longest[o][n]: lines that old[o..] and new[n..] have in common.
    let width = new.len() + 1;
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    for o in (0..old.len()).rev() {
        for n in (0..new.len()).rev() {
            longest[o * width + n] = if old[o] == new[n] {
                longest[(o + 1) * width + n + 1] + 1
            } else {
                longest[(o + 1) * width + n].max(longest[o * width + n + 1])
            };
        }
    }
    let (mut o, mut n) = (0, 0);
    while o < old.len() || n < new.len() {
        if o < old.len() && n < new.len() && old[o] == new[n] {
            lines.push(Line::Same(old[o]));
            (o, n) = (o + 1, n + 1);
        } else if n == new.len() || (o < old.len() && longest[(o + 1) * width + n] >= longest[o * width + n + 1]) {
            lines.push(Line::Old(old[o]));
            o += 1;
        } else {
            lines.push(Line::New(new[n]));
            n += 1;
        }
    }
}

/// The same side by side: a run of old lines stands beside the run of new ones that replaced it.
#[must_use]
pub fn side_by_side<'a>(lines: &[Line<'a>]) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::with_capacity(lines.len());
    // Rows from here on still have an empty right side.
    let mut open = 0;
    for line in lines {
        match line {
            Line::Same(text) => {
                rows.push((Some(text), Some(text)));
                open = rows.len();
            }
            Line::Old(text) => rows.push((Some(text), None)),
            Line::New(text) => match rows.get_mut(open) {
                Some(row) if row.1.is_none() => {
                    row.1 = Some(text);
                    open += 1;
                }
                _ => {
                    rows.push((None, Some(text)));
                    open = rows.len();
                }
            },
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_differs_is_told_as_different() {
        use Line::{New, Old, Same};
        assert_eq!(diff("a\nb\nc", "a\nx\nc"), [Same("a"), Old("b"), New("x"), Same("c")]);
        assert_eq!(diff("a", "a"), [Same("a")]);
        assert_eq!(diff("", "a"), [Old(""), New("a")]);
        assert_eq!(diff("a\nb\nc\nd", "b\nd\ne"), [Old("a"), Same("b"), Old("c"), Same("d"), New("e")]);
    }

    #[test]
    fn replaced_lines_stand_side_by_side() {
        let lines = diff("a\nb\nc\nz", "a\nx\nz\nnew");
        let rows = side_by_side(&lines);
        let expected = [
            (Some("a"), Some("a")),
            (Some("b"), Some("x")),
            (Some("c"), None),
            (Some("z"), Some("z")),
            (None, Some("new")),
        ];
        assert_eq!(rows, expected);
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_off_the_comparison(old in "[ab\n]{0,12}", new in "[ab\n]{0,12}") {
            let lines = diff(&old, &new);
            let pick = |wanted: fn(&Line<'_>) -> bool| {
                let text = |line: &Line<'_>| match *line { Line::Same(t) | Line::Old(t) | Line::New(t) => t.to_owned() };
                lines.iter().filter(|line| wanted(line)).map(text).collect::<Vec<_>>().join("\n")
            };
            prop_assert_eq!(pick(|line| !matches!(line, Line::New(_))), old.clone());
            prop_assert_eq!(pick(|line| !matches!(line, Line::Old(_))), new.clone());
            let rows = side_by_side(&lines);
            let left: Vec<_> = rows.iter().filter_map(|row| row.0).collect();
            let right: Vec<_> = rows.iter().filter_map(|row| row.1).collect();
            prop_assert_eq!((left.join("\n"), right.join("\n")), (old, new));
        }
    }
}
