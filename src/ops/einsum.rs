//! Einstein summation, two operands at a time.

use std::collections::BTreeMap;

use super::{Cx, OpDef};
use crate::expr::{Expr, Idx, vars};
use crate::ir::{Axes, Combine, Program, Stop, ValueId};

/// The family.
pub const OPS: &[OpDef] = &[OpDef::new(
    "",
    "Einsum",
    12,
    "sum of products by subscripts; more than two operands are contracted from the left",
    einsum,
)];

/// A subscript: a letter, or an axis of the ellipsis counted from the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// An operand with its subscripts.
#[derive(Clone)]
struct Term {
    value: ValueId,
    labels: Vec<Label>,
}

type Sizes = BTreeMap<Label, Idx>;

fn einsum(cx: &mut Cx) -> Result<Vec<ValueId>, Stop> {
    let equation: String = cx.string_or("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let values = cx.all_inputs()?;
    let subscripts: Vec<&str> = left.split(',').collect();
    if subscripts.len() != values.len() {
        return Err(cx.error(format!("equation {equation:?} for {} operands", values.len())));
    }
    let mut terms = Vec::new();
    let mut sizes = Sizes::new();
    for (subscripts, &value) in subscripts.iter().zip(&values) {
        let rank = cx.program.rank(value);
        let hidden = (rank + 1).saturating_sub(subscripts.replace("...", ".").chars().count());
        let labels = labels(subscripts, hidden);
        if labels.len() != rank {
            return Err(cx.error(format!("subscripts {subscripts:?} for {rank} axes")));
        }
        for (label, size) in labels.iter().zip(cx.program.shape(value).to_vec()) {
            match sizes.get(label).cloned() {
                Some(known) if known == size || size.is(1) => {}
                Some(known) if !known.is(1) => cx.program.equate(&known, &size, "sizes of one subscript")?,
                _ => drop(sizes.insert(*label, size)),
            }
        }
        terms.push(Term { value, labels });
    }
    let hidden = sizes.keys().filter(|label| matches!(label, Label::Ellipsis(_))).count();
    let output = match right {
        Some(right) => labels(right, hidden),
        None => implied(&terms, hidden),
    };
    if let Some(unknown) = output.iter().find(|label| !sizes.contains_key(label)) {
        let unknown = match unknown {
            Label::Letter(letter) => format!("{letter:?}"),
            Label::Ellipsis(_) => "\"...\"".into(),
        };
        return Err(cx.error(format!("output subscript {unknown} of {equation:?} is in no operand")));
    }
    let p = &mut *cx.program;
    let mut terms = terms.into_iter();
    let Some(mut whole) = terms.next() else { return Err(p.error("no operands")) };
    let mut rest: Vec<Term> = terms.collect();
    while !rest.is_empty() {
        let next = rest.remove(0);
        let later = |label: &Label| output.contains(label) || rest.iter().any(|t| t.labels.contains(label));
        whole = product(p, &whole, &next, &sizes, &later);
    }
    let y = summed(p, &whole, &output, &sizes);
    let shape = output.iter().map(|label| sizes[label].clone()).collect();
    let order = |label: &Label| y.labels.iter().position(|l| l == label);
    let order: Vec<usize> = output.iter().filter_map(order).collect();
    Ok(vec![p.view(y.value, shape, |i| {
        let mut at = vec![Idx::from(0i64); i.len()];
        order.iter().zip(i).for_each(|(&axis, i)| at[axis] = i.clone());
        at
    })])
}

/// The labels of `subscripts`, whose ellipsis stands for `hidden` axes.
fn labels(subscripts: &str, hidden: usize) -> Vec<Label> {
    let one = |c: char| match c {
        '.' => (0..hidden).rev().map(Label::Ellipsis).collect(),
        c => vec![Label::Letter(c)],
    };
    subscripts.replace("...", ".").chars().flat_map(one).collect()
}

/// Without an output side: the ellipsis, then every letter that occurs once, in order.
fn implied(terms: &[Term], hidden: usize) -> Vec<Label> {
    let all: Vec<Label> = terms.iter().flat_map(|t| t.labels.iter().copied()).collect();
    let mut letters: Vec<Label> = all
        .iter()
        .copied()
        .filter(|l| matches!(l, Label::Letter(_)) && all.iter().filter(|m| *m == l).count() == 1)
        .collect();
    letters.sort();
    (0..hidden).rev().map(Label::Ellipsis).chain(letters).collect()
}

/// The labels of a group of axes.
fn sizes_of(labels: &[Label], sizes: &Sizes) -> Vec<Idx> {
    labels.iter().map(|label| sizes[label].clone()).collect()
}

/// The element of `term` where every label has its index; broadcast axes read 0.
fn element(p: &Program, term: &Term, at: &BTreeMap<Label, Idx>) -> Expr {
    let shape = p.shape(term.value);
    let index = |(label, d): (&Label, &Idx)| if d.is(1) { Idx::from(0i64) } else { at[label].clone() };
    let at: Vec<Idx> = term.labels.iter().zip(shape).map(index).collect();
    p.load(term.value, &at)
}

/// Pairs of labels and indices.
fn bind(labels: &[Label], at: &[Idx]) -> BTreeMap<Label, Idx> {
    labels.iter().copied().zip(at.iter().cloned()).collect()
}

/// `term` with labels that are not in `kept` summed over and repeated ones on the diagonal.
fn summed(p: &mut Program, term: &Term, kept: &[Label], sizes: &Sizes) -> Term {
    let mut outer: Vec<Label> = Vec::new();
    let mut inner: Vec<Label> = Vec::new();
    for label in &term.labels {
        let group = if kept.contains(label) { &mut outer } else { &mut inner };
        if !group.contains(label) {
            group.push(*label);
        }
    }
    let all = [outer.clone(), inner.clone()].concat();
    let (shape, extents) = (sizes_of(&outer, sizes), sizes_of(&inner, sizes));
    let value = if inner.is_empty() {
        let body = element(p, term, &bind(&all, &vars(0, &shape)));
        p.map(shape, body)
    } else {
        p.reduction(shape, extents, Combine::Sum, |p, o, i| element(p, term, &bind(&all, &[o, i].concat())))
    };
    Term { value, labels: outer }
}

/// `a * b`, summed over the labels of both that nothing needs later.
fn product(p: &mut Program, a: &Term, b: &Term, sizes: &Sizes, later: &dyn Fn(&Label) -> bool) -> Term {
    let needed = |term: &Term, other: &Term| -> Vec<Label> {
        term.labels.iter().copied().filter(|l| later(l) || other.labels.contains(l)).collect()
    };
    let (a_kept, b_kept) = (needed(a, b), needed(b, a));
    let (a, b) = (summed(p, a, &a_kept, sizes), summed(p, b, &b_kept, sizes));
    let shared = |l: &&Label| b.labels.contains(l);
    let batch: Vec<Label> = a.labels.iter().filter(shared).filter(|l| later(l)).copied().collect();
    let k: Vec<Label> = a.labels.iter().filter(shared).filter(|l| !later(l)).copied().collect();
    let m: Vec<Label> = a.labels.iter().filter(|l| !b.labels.contains(l)).copied().collect();
    let n: Vec<Label> = b.labels.iter().filter(|l| !a.labels.contains(l)).copied().collect();
    let labels = [batch.clone(), m.clone(), n.clone()].concat();
    let all = [labels.clone(), k.clone()].concat();
    let of = |group: &[Label]| sizes_of(group, sizes);
    let extents = Axes { batch: of(&batch), m: of(&m), n: of(&n), k: of(&k) };
    let value = p.contract(extents, |p, at| {
        let at = [at.batch.clone(), at.m.clone(), at.n.clone(), at.k.clone()].concat();
        let at = bind(&all, &at);
        (element(p, &a, &at), element(p, &b, &at))
    });
    Term { value, labels }
}

#[cfg(test)]
mod tests {
    use super::super::case::{check, count, f32s, refusal};
    use crate::graph::Attribute::{self, String};

    fn equation(text: &str) -> [(&'static str, Attribute); 1] {
        [("equation", String(text.into()))]
    }

    #[test]
    fn equations() {
        let (a, b) = (count(&[2, 2]), f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
        let rows: &[(&str, &[usize], &[f32])] = &[
            ("ij,jk->ik", &[2, 2], &[3.0, 4.0, 11.0, 16.0]),
            ("ij,jk", &[2, 2], &[3.0, 4.0, 11.0, 16.0]),
            ("ij, jk -> ki", &[2, 2], &[3.0, 11.0, 4.0, 16.0]),
            ("...j,...j->...", &[2], &[2.0, 18.0]),
            ("ij,ij->", &[], &[20.0]),
            ("ij,kl->k", &[2], &[18.0, 42.0]),
            ("ij,ij->ij", &[2, 2], &[0.0, 2.0, 6.0, 12.0]),
        ];
        for (text, shape, want) in rows {
            check("Einsum", 12, &equation(text), &[a.clone(), b.clone()], &f32s(shape, want));
        }
        check("Einsum", 12, &equation("ii->i"), std::slice::from_ref(&a), &f32s(&[2], &[0.0, 3.0]));
        check("Einsum", 12, &equation("ji"), std::slice::from_ref(&a), &f32s(&[2, 2], &[0.0, 2.0, 1.0, 3.0]));
        let three = [a.clone(), b.clone(), b];
        check("Einsum", 12, &equation("ij,jk,kl->il"), &three, &f32s(&[2, 2], &[15.0, 22.0, 59.0, 86.0]));
        let error = refusal("Einsum", 12, &equation("ijk->i"), &[a]);
        assert_eq!(error, "Einsum \"node\": subscripts \"ijk\" for 2 axes");
    }
}
