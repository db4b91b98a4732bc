//! A mapping that may be repeated in a list.

use crate::config::document::Document;
use crate::config::reader::cursor::Cursor;
use crate::config::schema::{TypeInfo, TypeShape, ValueType};

use super::lists::{Items, List, some};

/// The type of a list of mappings. A mapping alone stands for a list of itself.
pub(in crate::config) struct OneOrMore<T> {
    item: T,
    list: List<T>,
    most: usize,
    what: &'static str,
}

/// Returns the type of one mapping, or of a list of 1 to `most` mappings, called `what` in
/// messages.
pub(in crate::config) fn one_or_more<T: ValueType>(
    item: fn() -> T,
    most: usize,
    what: &'static str,
) -> OneOrMore<T> {
    OneOrMore { item: item(), list: some(item(), most, what), most, what }
}

impl<T: ValueType> ValueType for OneOrMore<T> {
    type Value = Items<T::Value>;

    fn read(&self, cursor: &Cursor<'_>) -> Option<Self::Value> {
        if cursor.is_list() {
            return self.list.read(cursor);
        }
        let only = cursor.locate(self.item.read(cursor)?);
        Some(Items { readable: vec![only], complete: true })
    }

    fn emit(&self, value: &Self::Value) -> Document {
        match value.readable.as_slice() {
            [only] => self.item.emit(&only.value),
            _ => self.list.emit(value),
        }
    }

    fn describe(&self) -> TypeInfo {
        let name = format!("mapping, or list of 1 to {} {}", self.most, self.what);
        let item = Box::new(self.item.describe());
        TypeInfo { name, words: Vec::new(), shape: TypeShape::OneOrMore { item, most: self.most } }
    }
}
