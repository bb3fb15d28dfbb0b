//! A disk in memory whose faults follow from a seed.
