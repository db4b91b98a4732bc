//! Makes the JSON Schema, the reference file and the manual from the declarations of the keys.

mod json_schema;
#[cfg(test)]
mod manual;
mod reference;
mod text;

pub(crate) use json_schema::json_schema;
pub(crate) use reference::reference;

#[cfg(test)]
mod tests;
