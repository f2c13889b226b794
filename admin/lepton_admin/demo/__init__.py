"""`lepton demo`: five hospitals, a coordinator and a researcher as real processes on one machine."""
