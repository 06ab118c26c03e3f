//! A container for parts that most Sessions never need, behind one pointer, because the memory of an idle Client is
//! the sum of such parts.

/// A collection that takes no memory while it is empty.
#[derive(Debug, Clone)]
pub(crate) struct Rare<T>(Option<Box<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> Rare<T> {
    /// The collection, if it is not empty.
    #[inline]
    #[must_use]
    pub(crate) fn as_ref(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// The collection, if it is not empty.
    #[inline]
    #[must_use]
    pub(crate) fn as_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// The collection, to put something in.
    #[inline]
    pub(crate) fn fill(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// Removes everything and frees the memory.
    #[inline]
    pub(crate) fn take(&mut self) -> T {
        self.0.take().map_or_else(T::default, |filled| *filled)
    }
}

impl<T> Rare<T>
where
    for<'a> &'a T: IntoIterator,
{
    /// Its items.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = <&T as IntoIterator>::Item> {
        self.0.as_deref().into_iter().flatten()
    }

    /// Whether nothing is in it.
    #[inline]
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
