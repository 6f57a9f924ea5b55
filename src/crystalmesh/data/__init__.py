"""Where systems come from: raw files of any format, embedded sets; validation; splits."""
