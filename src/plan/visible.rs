//! How many keys a query sees at the most, where indices alone say so: under a causal mask or a window.
//!
//! Beyond them every score is minus infinity, whatever the inputs are, and attention need not look.

use crate::expr::{Atom, Binary, Expr, Idx, Node, Unary, Value};

/// Loop variables of a score.
const QUERY: u32 = 1;
const KEY: u32 = 3;

/// From which key on `score` is minus infinity, if that is known; it does not shrink with the query.
pub fn keys(score: &Expr) -> Option<Idx> {
    hidden(score).filter(grows_with_query)
}

/// From which key on an addend of the score is minus infinity.
fn hidden(expr: &Expr) -> Option<Idx> {
    match expr.node() {
        Node::Const(_) => {
            matches!(expr.as_const(), Some(Value::F(f64::NEG_INFINITY))).then(|| Idx::from(0i64))
        }
        Node::Cast(dtype, x) if dtype.is_float() && x.dtype().is_float() => hidden(x),
        Node::Binary(Binary::Add, x, y) => hidden(x).or_else(|| hidden(y)),
        Node::Binary(Binary::Sub, x, _) => hidden(x),
        Node::Select(condition, x, y) => {
            let branch = |settled: Option<Idx>, branch| Some(settled?.larger(&hidden(branch)?));
            branch(holds_from(condition, false), y).or_else(|| branch(holds_from(condition, true), x))
        }
        _ => None,
    }
}

/// From which key on `condition` is `wanted`.
fn holds_from(condition: &Expr, wanted: bool) -> Option<Idx> {
    let one = Idx::from(1i64);
    match condition.node() {
        Node::Unary(Unary::Not, x) => holds_from(x, !wanted),
        Node::Binary(op @ (Binary::And | Binary::Or), x, y) => {
            let (x, y) = (holds_from(x, wanted), holds_from(y, wanted));
            // One part that is false makes a conjunction false, one that is true a disjunction true.
            if (*op == Binary::And) == wanted { Some(x?.larger(&y?)) } else { x.or(y) }
        }
        // x <= y is x - y <= 0, and x < y is x - y + 1 <= 0.
        Node::Binary(op @ (Binary::Le | Binary::Lt), x, y) => {
            let difference = &x.as_idx()? - &y.as_idx()?;
            let difference = if *op == Binary::Lt { &difference + &one } else { difference };
            let (slope, rest) = along_keys(&difference)?;
            match (slope, wanted) {
                (1, false) => Some(&one - &rest),
                (-1, true) => Some(rest),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `idx` as `slope * key + rest`.
fn along_keys(idx: &Idx) -> Option<(i64, Idx)> {
    let is_key = |atom: &Atom| matches!(atom, Atom::Var(v) if v.id == KEY);
    let (_, slope) =
        idx.terms().iter().find(|(atoms, _)| matches!(atoms.as_slice(), [atom] if is_key(atom)))?;
    let key = idx.terms().iter().flat_map(|(atoms, _)| atoms).find(|atom| is_key(atom))?;
    let rest = idx - &(&Idx::from(*slope) * &Idx::from_atom(key));
    let mut elsewhere = false;
    rest.visit(&mut |atom| elsewhere |= is_key(atom) || matches!(atom, Atom::Data(..)));
    (!elsewhere).then_some((*slope, rest))
}

fn grows_with_query(bound: &Idx) -> bool {
    let is_query = |atom: &Atom| matches!(atom, Atom::Var(v) if v.id == QUERY);
    bound.terms().iter().all(|(atoms, c)| {
        let mut within = 0;
        atoms.iter().for_each(|atom| Idx::from_atom(atom).visit(&mut |a| within += usize::from(is_query(a))));
        within == 0 || (*c > 0 && within == 1 && atoms.iter().any(is_query))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn masks_made_of_indices_are_seen() {
        let number = |idx: &Idx| Expr::index(idx.clone(), DType::I64);
        let (past, keys, queries) = (Idx::sym("past"), Idx::sym("keys"), Idx::from(64i64));
        let (query, key) = (Idx::var(QUERY, &queries), Idx::var(KEY, &keys));
        let position = &query + &past;
        let (dot, hidden) = (Expr::arg(0, DType::F32), Expr::float(DType::F32, f64::NEG_INFINITY));
        let causal = number(&key).binary(Binary::Le, &number(&position));
        let later = number(&position).binary(Binary::Lt, &number(&key));
        let window = number(&(&position - &Idx::from(7i64))).binary(Binary::Le, &number(&key));
        let given = Expr::load(1, DType::Bool, vec![key.clone()]);
        let zero = Expr::float(DType::F32, 0.0);
        let lowest = Expr::float(DType::F32, f64::from(f32::MIN));
        let sees = Some(&position + &Idx::from(1i64));
        let rows = [
            (causal.select(&dot, &hidden), sees.clone()),
            (later.select(&hidden, &dot), sees.clone()),
            (&dot + &causal.select(&zero, &hidden), sees.clone()),
            (window.select(&causal.select(&dot, &hidden), &hidden), sees.clone()),
            (causal.select(&window.select(&dot, &hidden), &hidden), sees.clone()),
            (causal.binary(Binary::And, &given).select(&dot, &hidden), sees.clone()),
            (causal.binary(Binary::Or, &given).select(&dot, &hidden), None),
            (causal.select(&dot, &lowest), None),
            (given.select(&dot, &hidden), None),
            (dot, None),
        ];
        for (score, want) in rows {
            assert_eq!(super::keys(&score), want, "{score}");
        }
        let backwards = &Idx::from(100i64) - &query;
        let shrinks = number(&key).binary(Binary::Le, &number(&backwards));
        assert_eq!(super::keys(&shrinks.select(&Expr::arg(0, DType::F32), &hidden)), None);
    }
}
