//! What contractions and convolutions multiply and add up.

use super::scope::Scope;
use crate::kernel::Product;

/// How many sums stand in one value: of four columns or channels, or one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    One,
    Four,
}

/// The types `Sum`, which is `sum`, and `Element`, and `mul_add(a, b, c)`, which is `a * b + c`.
pub fn mul_add(scope: &mut Scope, product: Product, sum: &str, lanes: Lanes) {
    let element = match product {
        Product::Numbers => sum,
        Product::SignedBytes | Product::UnsignedBytes => "u32",
    };
    scope.text(&format!("alias Sum = {sum};\nalias Element = {element};"));
    // A type of all lanes, `a` in all of them, and a function of `a` and each lane of `b`.
    let wide = |ty: &str| match lanes {
        Lanes::One => ty.to_string(),
        Lanes::Four => format!("vec4<{ty}>"),
    };
    let a = if lanes == Lanes::One { "a".to_string() } else { format!("{}(a)", wide("Sum")) };
    let dot = |name: &str, ty: &str| match lanes {
        Lanes::One => format!("{name}(a, b)"),
        Lanes::Four => {
            let each = ["x", "y", "z", "w"].map(|lane| format!("{name}(a, b.{lane})"));
            format!("{}({})", wide(ty), each.join(", "))
        }
    };
    let result = match product {
        Product::Numbers if ["f16", "f32"].contains(&sum) => format!("fma({a}, b, c)"),
        Product::Numbers => format!("{a} * b + c"),
        Product::SignedBytes => format!("{} + c", dot("dot4I8Packed", "i32")),
        Product::UnsignedBytes => format!("{}({}) + c", wide("i32"), dot("dot4U8Packed", "u32")),
    };
    let (elements, sums) = (wide("Element"), wide("Sum"));
    scope.text(&format!("fn mul_add(a: Element, b: {elements}, c: {sums}) -> {sums} {{ return {result}; }}"));
}
