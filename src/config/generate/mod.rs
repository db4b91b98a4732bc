//! What is made of the declaration of the keys: JSON Schema, reference file, manual.

mod json_schema;
#[cfg(test)]
mod manual;
mod reference;
mod text;

pub use json_schema::json_schema;
pub use reference::reference;

#[cfg(test)]
mod tests;
