//! An operator looks at a running box and changes it.
//!
//! | file | behaviour |
//! |---|---|
//! | `reload` | every part of the configuration changes while packets flow, or nothing changes |

mod reload;
