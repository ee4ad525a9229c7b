//! Log set-up
