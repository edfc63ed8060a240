//! Building a program: values are added one by one, folded where they are known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Def, Guard, Relation, Repeat, Update, Value, ValueId};
use crate::error::Error;
use crate::expr::{Binary, Expr, Idx, Node, Unary, flatten, numel, unflatten, vars};
use crate::tensor::{DType, Tensor};

/// Why lowering stopped.
#[derive(Debug)]
pub enum Stop {
    /// The model is wrong or asks for too much.
    Error(Error),
    /// The plan depends on the *contents* of these graph inputs: plan again with them given.
    NeedsInputs(BTreeSet<usize>),
    /// The plan depends on sizes that are symbols here: plan again with the shapes of all inputs given.
    NeedsShapes,
    /// The plan depends on a computed value: run what comes before, and plan again with it given.
    NeedsValue(Needed),
}

/// What lowering must know of computed values before it can go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Needed {
    /// The value.
    pub value: ValueId,
    /// Whether it is one number that only counts something: the plan is for any count.
    pub is_count: bool,
    /// Values that what comes afterwards may read.
    pub live: BTreeSet<ValueId>,
}

/// What an earlier stage of the run computed.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// A number that counts something, known by a symbol.
    Count,
    /// The elements.
    Elements(Tensor),
}

impl Stop {
    /// This, and what comes afterwards may read these values.
    pub fn keeping(mut self, values: impl IntoIterator<Item = ValueId>) -> Stop {
        if let Stop::NeedsValue(needed) = &mut self {
            needed.live.extend(values);
        }
        self
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

/// Values, the guards under which they hold, and what messages call the place at work.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// All values, each after those it loads.
    pub values: Vec<Value>,
    /// What a run must check.
    pub guards: Vec<Guard>,
    /// The node being lowered, for messages and names.
    pub place: String,
    /// What a run computes again and again, in order.
    pub repeats: Vec<Repeat>,
    /// Values that earlier stages of the run computed, and what is lowered now may know.
    pub given: BTreeMap<ValueId, Given>,
    /// Those that it may know once it has asked for them.
    pub answers: BTreeMap<ValueId, Given>,
    /// Values to be found again, in order, in place of new ones: what is lowered now was begun before.
    pub again: VecDeque<ValueId>,
    /// The value added last.
    pub latest: Option<ValueId>,
}

impl Program {
    /// The value `id`.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id as usize]
    }

    /// Its shape.
    pub fn shape(&self, id: ValueId) -> &[Idx] {
        &self.value(id).shape
    }

    /// Its dtype.
    pub fn dtype(&self, id: ValueId) -> DType {
        self.value(id).dtype
    }

    /// Its number of axes.
    pub fn rank(&self, id: ValueId) -> usize {
        self.shape(id).len()
    }

    /// An [`Error::Model`] at the node being lowered.
    pub fn error(&self, message: impl Into<String>) -> Stop {
        Stop::Error(Error::model(self.place.clone(), message))
    }

    /// Add a value; its contents are worked out where they can be.
    pub fn add(&mut self, dtype: DType, shape: Vec<Idx>, def: Def) -> ValueId {
        self.add_with(|program| {
            let name = program.place.clone();
            let mut value = Value { name, dtype, shape, def, content: None, update: None };
            program.fold(&mut value);
            value
        })
    }

    /// Add the value that `make` gives, or find it again.
    pub(super) fn add_with(&mut self, make: impl FnOnce(&Program) -> Value) -> ValueId {
        let id = self.again.pop_front().unwrap_or_else(|| {
            let value = make(self);
            self.values.push(value);
            (self.values.len() - 1) as ValueId
        });
        self.latest = Some(id);
        id
    }

    /// The number of the value that is added next.
    pub(super) fn next(&self) -> ValueId {
        self.again.front().copied().unwrap_or(self.values.len() as ValueId)
    }

    /// A constant.
    pub fn weight(&mut self, tensor: Tensor) -> ValueId {
        let shape = tensor.shape().iter().map(|&d| Idx::from(d)).collect();
        self.add(tensor.dtype(), shape, Def::Weight(tensor))
    }

    /// A scalar with a known expression of symbols.
    pub fn scalar(&mut self, expr: Expr) -> ValueId {
        self.map(vec![], expr)
    }

    /// A vector of known elements, as `[batch, 12, length]`.
    pub fn list(&mut self, dtype: DType, elements: &[Expr]) -> ValueId {
        let shape = vec![Idx::from(elements.len())];
        let body = match elements {
            [] => Expr::int(dtype, 0),
            _ => chain(elements, &Idx::var(0, &shape[0])),
        };
        self.map(shape, body)
    }

    /// `out[i] = body(i)`, with loop variables `0..rank`.
    pub fn map(&mut self, shape: Vec<Idx>, body: Expr) -> ValueId {
        // A map that is nothing but another value is that value.
        if let Node::Load { source, at, .. } = body.node()
            && *at == vars(0, &shape)
            && self.shape(*source) == shape.as_slice()
        {
            return *source;
        }
        self.add(body.dtype(), shape, Def::Map(body))
    }

    /// [`Program::map`] of what is an update, too.
    pub fn map_or_update(&mut self, shape: Vec<Idx>, body: Expr, update: Update) -> ValueId {
        let known = self.values.len();
        let id = self.map(shape, body);
        // Else it is the base itself, or what replaces all of it.
        if id as usize >= known && self.value(id).content.is_none() {
            self.values[id as usize].update = Some(Box::new(update));
        }
        id
    }

    /// The element `at` of a value; small known values are inlined.
    pub fn load(&self, id: ValueId, at: &[Idx]) -> Expr {
        let value = self.value(id);
        let load = || Expr::load(id, value.dtype, at.to_vec());
        let Some(content) = &value.content else { return load() };
        if let [only] = content.as_slice() {
            return only.clone();
        }
        let offset = flatten(at, &value.shape);
        match offset.as_const() {
            Some(offset) => content.get(offset as usize).cloned().unwrap_or_else(load),
            None if (2..=4).contains(&content.len()) => chain(content, &offset),
            None => load(),
        }
    }

    /// The element of `id` that lands at `at` of a larger shape under ONNX's (numpy's) broadcasting.
    pub fn load_broadcast(&self, id: ValueId, at: &[Idx]) -> Expr {
        let shape = self.shape(id);
        let skip = at.len() - shape.len();
        let at: Vec<Idx> = at[skip..]
            .iter()
            .zip(shape)
            .map(|(i, d)| if d.is(1) { Idx::from(0i64) } else { i.clone() })
            .collect();
        self.load(id, &at)
    }

    /// Record that two sizes are equal, or say why they cannot be.
    pub fn equate(&mut self, left: &Idx, right: &Idx, what: &str) -> Result<(), Stop> {
        self.relate(left, Relation::Equal, right, what)
    }

    /// Record that two sizes are so related, or say why they cannot be; `what` says what they are.
    pub fn relate(&mut self, left: &Idx, relation: Relation, right: &Idx, what: &str) -> Result<(), Stop> {
        if relation.is_proven(left, right) {
            return Ok(());
        }
        if let (Some(a), Some(b)) = (left.as_const(), right.as_const())
            && !relation.holds(a, b)
        {
            return Err(self.error(format!("{what}: {}", relation.demand(a, b))));
        }
        let place = format!("{}: {what}", self.place);
        let guard = Guard { left: left.clone(), relation, right: right.clone(), place };
        if !self.guards.contains(&guard) {
            self.guards.push(guard);
        }
        Ok(())
    }

    /// The shape that all of `shapes` broadcast to.
    pub fn broadcast(&mut self, shapes: &[Vec<Idx>]) -> Result<Vec<Idx>, Stop> {
        let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
        let mut out = vec![Idx::from(1i64); rank];
        for shape in shapes {
            let skip = rank - shape.len();
            for (axis, d) in shape.iter().enumerate() {
                let wanted = out[skip + axis].clone();
                if d.is(1) || *d == wanted {
                    continue;
                }
                if !wanted.is(1) {
                    self.equate(
                        &wanted,
                        d,
                        &format!("axis {} of operands that broadcast together", skip + axis),
                    )?;
                }
                if wanted.is(1) || d.as_const().is_some() {
                    out[skip + axis] = d.clone();
                }
            }
        }
        Ok(out)
    }

    /// `out = f(elements of the operands)`, with broadcasting.
    pub fn elementwise(
        &mut self,
        operands: &[ValueId],
        f: impl FnOnce(&[Expr]) -> Expr,
    ) -> Result<ValueId, Stop> {
        let shapes: Vec<_> = operands.iter().map(|&v| self.shape(v).to_vec()).collect();
        let shape = self.broadcast(&shapes)?;
        let at = vars(0, &shape);
        let loads: Vec<Expr> = operands.iter().map(|&v| self.load_broadcast(v, &at)).collect();
        Ok(self.map(shape, f(&loads)))
    }

    /// `f(x)` for every element.
    pub fn unary(&mut self, x: ValueId, f: impl FnOnce(&Expr) -> Expr) -> ValueId {
        let shape = self.shape(x).to_vec();
        let body = f(&self.load(x, &vars(0, &shape)));
        self.map(shape, body)
    }

    /// `op(x)` for every element.
    pub fn apply(&mut self, op: Unary, x: ValueId) -> ValueId {
        self.unary(x, |e| e.unary(op))
    }

    /// `op(a, b)` with broadcasting.
    pub fn binary(&mut self, op: Binary, a: ValueId, b: ValueId) -> Result<ValueId, Stop> {
        self.elementwise(&[a, b], |e| e[0].binary(op, &e[1]))
    }

    /// Conversion of every element.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> ValueId {
        if self.dtype(x) == dtype { x } else { self.unary(x, |e| e.cast(dtype)) }
    }

    /// The same elements under another shape. The sizes must agree.
    pub fn reshape(&mut self, x: ValueId, shape: Vec<Idx>) -> Result<ValueId, Stop> {
        if self.shape(x) == shape.as_slice() {
            return Ok(x);
        }
        let (have, want) = (numel(self.shape(x)), numel(&shape));
        self.equate(&have, &want, "number of elements before and after a reshape")?;
        let source = match self.value(x).def {
            Def::Reshape(source) => source,
            Def::Input(_)
            | Def::Weight(_)
            | Def::Map(_)
            | Def::Reduce { .. }
            | Def::Contract { .. }
            | Def::TopK { .. }
            | Def::Stacked { .. } => x,
        };
        if self.shape(source) == shape.as_slice() {
            return Ok(source);
        }
        let dtype = self.dtype(x);
        Ok(self.add(dtype, shape, Def::Reshape(source)))
    }

    /// `out[i] = x[at(i)]` over `shape`.
    pub fn view(&mut self, x: ValueId, shape: Vec<Idx>, at: impl FnOnce(&[Idx]) -> Vec<Idx>) -> ValueId {
        let body = self.load(x, &at(&vars(0, &shape)));
        self.map(shape, body)
    }

    /// `out[i_p(0), i_p(1), ..] = x[i]`: axis `j` of the result is axis `order[j]` of `x`.
    pub fn transpose(&mut self, x: ValueId, order: &[usize]) -> ValueId {
        let shape: Vec<Idx> = order.iter().map(|&axis| self.shape(x)[axis].clone()).collect();
        self.view(x, shape, |i| {
            let mut at = vec![Idx::from(0i64); order.len()];
            order.iter().zip(i).for_each(|(&axis, i)| at[axis] = i.clone());
            at
        })
    }

    /// `x` broadcast to `shape`.
    pub fn expand(&mut self, x: ValueId, shape: Vec<Idx>) -> ValueId {
        let body = self.load_broadcast(x, &vars(0, &shape));
        self.map(shape, body)
    }
}

impl Value {
    /// The values that the definition loads, each once.
    pub fn sources(&self) -> Vec<ValueId> {
        let mut found = BTreeSet::new();
        for expr in self.exprs() {
            expr.visit(&mut |e| {
                if let Node::Load { source, .. } = e.node() {
                    found.insert(*source);
                }
            });
        }
        if let Def::Reshape(source) = self.def {
            found.insert(source);
        }
        found.into_iter().collect()
    }

    /// The expressions of the definition.
    pub fn exprs(&self) -> Vec<&Expr> {
        match &self.def {
            Def::Input(_) | Def::Weight(_) | Def::Reshape(_) => vec![],
            Def::Map(body)
            | Def::Reduce { body, .. }
            | Def::TopK { key: body, .. }
            | Def::Stacked { body, .. } => vec![body],
            Def::Contract { a, b, windows, .. } => {
                let windows = windows.iter().flat_map(|windows| [&windows.w, &windows.x]);
                [a, b].into_iter().chain(windows).collect()
            }
        }
    }
}

/// `offset == 0 ? content[0] : offset == 1 ? content[1] : ...`
pub(super) fn chain(content: &[Expr], offset: &Idx) -> Expr {
    let position = Expr::index(offset.clone(), DType::I32);
    let Some((last, rest)) = content.split_last() else { return Expr::int(DType::I32, 0) };
    rest.iter().enumerate().rev().fold(last.clone(), |other, (i, here)| {
        position.binary(Binary::Eq, &Expr::int(DType::I32, i as i64)).select(here, &other)
    })
}

/// Row-major positions of `shape`, when it is constant and has at most `limit` elements.
pub(super) fn positions(shape: &[Idx], limit: usize) -> Option<Vec<Vec<Idx>>> {
    let count = usize::try_from(numel(shape).as_const()?).ok().filter(|&n| n <= limit)?;
    Some((0..count).map(|i| unflatten(&Idx::from(i), shape)).collect())
}
