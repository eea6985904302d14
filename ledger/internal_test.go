package ledger

// EntryAtSQL is for a test of what it costs.
const EntryAtSQL = entryAtSQL
