//! The records inside a batch: encoding and decoding (Kafka record, version 2).
