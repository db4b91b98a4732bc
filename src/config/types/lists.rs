//! Lists.

use crate::config::document::Document;
use crate::config::reader::cursor::{Cursor, Located};
use crate::config::schema::{TypeInfo, TypeShape, ValueType};

/// The items of a list that could be read.
#[derive(Clone, Debug)]
pub(in crate::config) struct Items<T> {
    /// The items, in the order of the file.
    pub readable: Vec<Located<T>>,
    /// Whether `readable` holds every item. A problem was reported for each of the others.
    pub complete: bool,
}

impl<T> Items<T> {
    /// Returns every item; None if one could not be read.
    pub(crate) fn all(&self) -> Option<&[Located<T>]> {
        self.complete.then_some(&self.readable)
    }

    /// Makes a list of values that were not read from a file.
    pub(crate) fn of(values: impl IntoIterator<Item = T>) -> Self {
        let readable = values.into_iter().map(Located::without_location).collect();
        Self { readable, complete: true }
    }

    /// Returns the value of every item; None if one could not be read.
    pub(crate) fn values(&self) -> Option<Vec<T>>
    where
        T: Clone,
    {
        Some(self.all()?.iter().map(|item| item.value.clone()).collect())
    }
}

/// The type of a list.
pub(in crate::config) struct List<T> {
    item: T,
    most: usize,
    what: &'static str,
    /// Whether the list must have an item. If so, a scalar alone counts as a list of itself.
    not_empty: bool,
}

/// Returns the type of a list of at most `most` items, called `what` in messages.
pub(in crate::config) fn list<T: ValueType>(item: T, most: usize, what: &'static str) -> List<T> {
    List { item, most, what, not_empty: false }
}

/// Returns the type of a list of 1 to `most` items. A scalar alone counts as a list of itself.
pub(in crate::config) fn some<T: ValueType>(item: T, most: usize, what: &'static str) -> List<T> {
    List { item, most, what, not_empty: true }
}

impl<T: ValueType> ValueType for List<T> {
    type Value = Items<T::Value>;

    fn read(&self, cursor: &Cursor<'_>) -> Option<Self::Value> {
        let cursors = match self.not_empty {
            true => cursor.some_items(self.most, self.what)?,
            false => cursor.items(self.most, self.what)?,
        };
        let read = |cursor: &Cursor<'_>| Some(cursor.locate(self.item.read(cursor)?));
        let readable: Vec<_> = cursors.iter().filter_map(read).collect();
        Some(Items { complete: readable.len() == cursors.len(), readable })
    }

    fn emit(&self, value: &Self::Value) -> Document {
        Document::List(value.readable.iter().map(|item| self.item.emit(&item.value)).collect())
    }

    fn describe(&self) -> TypeInfo {
        let item = self.item.describe();
        let least = usize::from(self.not_empty);
        let mut name = format!("list of {least} to {} {}", self.most, self.what);
        // Adds the form of an item, unless its name says no more than `what`.
        if item.name.starts_with('`') {
            name.push_str(&format!(", each {}", item.name));
        }
        let shape = TypeShape::List { item: Box::new(item), least, most: self.most, instead: &[] };
        TypeInfo { name, words: Vec::new(), shape }
    }
}
