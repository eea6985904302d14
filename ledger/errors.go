package ledger

import (
	"errors"
	"fmt"

	"github.com/lib/pq"
)

// Code is why a call was refused, in the words of the API.
type Code string

// Every refusal. Nothing was booked when one is returned.
const (
	CodeMissing       Code = "parameter_missing"
	CodeInvalid       Code = "parameter_invalid"
	CodeUnknown       Code = "parameter_unknown"
	CodeAssetUnknown  Code = "asset_unknown"
	CodeCurrency      Code = "currency_mismatch"
	CodeInsufficient  Code = "insufficient_credits"
	CodeNotFound      Code = "resource_missing"
	CodeInProgress    Code = "request_in_progress"
	CodeFrozen        Code = "wallet_frozen"
	CodeTopupInFlight Code = "topup_in_flight"
	CodeState         Code = "state_conflict"
	CodeKeyReused     Code = "idempotency_key_reused"
	CodeRateLimited   Code = "rate_limited"
	CodeUnavailable   Code = "unavailable"
)

// Refusal is a call that was understood and not done. Its text is meant for the caller: what was wrong,
// which field, what to do.
type Refusal struct {
	Code    Code
	Param   string
	Message string

	// Facts of an insufficient_credits refusal, in steps of an asset of that scale.
	Available, Required int64
	Scale               int16
	Wallet              string
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Message }

// refuse makes a refusal; param may be empty.
func refuse(code Code, param, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
}

// IsCode reports whether err is a refusal with that code.
func IsCode(err error, code Code) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Code == code
}

// violates reports whether err is the database's word that a named constraint or unique index was broken.
func violates(err error, constraint string) bool {
	var pe *pq.Error
	return errors.As(err, &pe) && pe.Constraint == constraint
}

// undone reports whether err is a posting's own way of undoing itself.
func undone(err error) bool {
	var pe *pq.Error
	return errors.As(err, &pe) && pe.Code == "22012" // division_by_zero
}

// passing reports whether err says that the same transaction may well succeed when it is run again.
func passing(err error) bool {
	var pe *pq.Error
	if !errors.As(err, &pe) {
		return false
	}
	return pe.Code == "40001" || pe.Code == "40P01" || outlived(err) // serialization_failure, deadlock_detected
}
