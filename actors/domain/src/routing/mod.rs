//! Routing of calls: contexts of rules, and the pure function that leads a call through them.
//!
//! A context enters as XML ([`xml`]), becomes rules ([`context`]) with an index over their masks ([`index`]); a call
//! enters [`route::route`] as a [`route::Query`] and leaves as a [`route::Trace`].

pub mod context;
pub mod digitmap;
pub mod index;
pub mod mask;
pub mod number;
pub mod route;
pub mod show;
pub mod template;
#[cfg(test)]
mod tests;
pub mod xml;

/// Whether a text is a number that a phone could dial: 1 to 64 of 0-9, * and #.
pub fn is_dialled(text: &str) -> bool {
    !text.is_empty()
        && mask::symbols(text).is_some()
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'*' | b'#'))
}
