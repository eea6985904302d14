package ledger

// These are for tests of what they cost.
const (
	EntryAtSQL        = entryAtSQL
	ArchivedAtSQL     = archivedAtSQL
	ArchivedBeforeSQL = archivedBeforeSQL
	NextSQL           = nextSQL
	UsedAtSQL         = usedAtSQL
	EntriesSQL        = entriesSQL
	ActivitySQL       = activitySQL
	LeftSQL           = leftSQL
)
