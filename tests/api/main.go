// The life of a camera's path, as a backend sees it through a client that is generated from /openapi.yaml.
//
//	api URL add PATH      adds and patches the path, polls until it is there
//	api URL watch PATH    polls until it is live and read; kicks every reader and waits until they are gone
//	api URL remove PATH   removes it and waits until it is gone
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"corecast/tests/api/client"
)

// Nothing takes this long on a healthy machine.
const patience = 40 * time.Second

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: api URL add|watch|remove PATH")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	c, err := client.NewClientWithResponses(os.Args[1])
	if err == nil {
		switch os.Args[2] {
		case "add":
			err = add(ctx, c, os.Args[3])
		case "watch":
			err = watch(ctx, c, os.Args[3])
		case "remove":
			err = remove(ctx, c, os.Args[3])
		default:
			err = fmt.Errorf("no such step: %s", os.Args[2])
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
}

// An answer of the generated client.
type answer interface {
	StatusCode() int
	GetBody() []byte
}

// want fails unless the answer has this status.
func want(what string, a answer, err error, status int) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if a.StatusCode() != status {
		return fmt.Errorf("%s: status %d, expected %d: %s", what, a.StatusCode(), status, a.GetBody())
	}
	return nil
}

// eventually polls as a backend does, ten times a second.
func eventually(ctx context.Context, what string, ready func() (bool, error)) error {
	giveUp := time.Now().Add(patience)
	for time.Now().Before(giveUp) {
		ok, err := ready()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: not within %v", what, patience)
}

func add(ctx context.Context, c *client.ClientWithResponses, path string) error {
	info, err := c.InfoWithResponse(ctx)
	if err := want("info", info, err, http.StatusOK); err != nil {
		return err
	}
	if info.JSON200.Version == "" || info.JSON200.Started.IsZero() {
		return fmt.Errorf("info says nothing: %s", info.Body)
	}
	readers := 5
	conf := client.PathConf{MaxReaders: &readers}
	added, err := c.ConfigPathsAddWithResponse(ctx, path, conf)
	if err := want("add", added, err, http.StatusOK); err != nil {
		return err
	}
	again, err := c.ConfigPathsAddWithResponse(ctx, path, conf)
	if err := want("add again", again, err, http.StatusBadRequest); err != nil {
		return err
	}
	if again.JSON400 == nil || again.JSON400.Error != "path already exists" {
		return fmt.Errorf("add again: %s", again.Body)
	}
	readers = 4
	override := false
	patch := client.PathConf{MaxReaders: &readers, OverridePublisher: &override}
	patched, err := c.ConfigPathsPatchWithResponse(ctx, path, patch)
	if err := want("patch", patched, err, http.StatusOK); err != nil {
		return err
	}
	patchedNow := func() (bool, error) {
		found, err := c.ConfigPathsGetWithResponse(ctx, path)
		if err := want("get", found, err, http.StatusOK); err != nil {
			return false, err
		}
		got := found.JSON200
		return *got.Name == path && *got.MaxReaders == 4 && !*got.OverridePublisher, nil
	}
	// MediaMTX answers before a change is in effect.
	if os.Getenv("IN_EFFECT_LATER") != "" {
		if err := eventually(ctx, "the patch is in effect", patchedNow); err != nil {
			return err
		}
	} else if now, err := patchedNow(); err != nil || !now {
		return errors.Join(errors.New("the patch is answered, but not in effect"), err)
	}
	return eventually(ctx, "the path is there", func() (bool, error) {
		live, err := c.PathsGetWithResponse(ctx, path)
		return err == nil && live.StatusCode() == http.StatusOK && !live.JSON200.Available, err
	})
}

func watch(ctx context.Context, c *client.ClientWithResponses, path string) error {
	live := func() (*client.Path, error) {
		// A page at a time, as 500 cameras need it.
		one := 1
		for page := 0; ; page++ {
			list, err := c.PathsListWithResponse(ctx, &client.PathsListParams{Page: &page, ItemsPerPage: &one})
			if err := want("list of paths", list, err, http.StatusOK); err != nil {
				return nil, err
			}
			for _, item := range list.JSON200.Items {
				if item.Name == path {
					return &item, nil
				}
			}
			if page >= list.JSON200.PageCount {
				return nil, errors.New("the path is in no page")
			}
		}
	}
	var source string
	err := eventually(ctx, "live and read", func() (bool, error) {
		found, err := live()
		if err != nil || !found.Available || found.Source == nil || len(found.Readers) == 0 {
			return false, err
		}
		source = found.Source.Id
		return found.InboundBytes > 0 && found.OutboundBytes > 0 && len(found.Tracks2) > 0, nil
	})
	if err != nil {
		return err
	}
	conns, err := c.RtspConnsListWithResponse(ctx, nil)
	if err := want("list of connections", conns, err, http.StatusOK); err != nil {
		return err
	}
	var published, read int
	for _, conn := range conns.JSON200.Items {
		if conn.Session == nil {
			continue
		}
		session, err := c.RtspSessionsGetWithResponse(ctx, *conn.Session)
		if err := want("session of a connection", session, err, http.StatusOK); err != nil {
			return err
		}
		if session.JSON200.Path != path {
			continue
		}
		switch session.JSON200.State {
		case client.RTSPSessionStatePublish:
			published++
			if session.JSON200.Id.String() != source {
				return fmt.Errorf("session %s publishes, but the source of the path is %s", session.JSON200.Id, source)
			}
		case client.RTSPSessionStateRead:
			read++
			kicked, err := c.RtspSessionsKickWithResponse(ctx, session.JSON200.Id)
			if err := want("kick", kicked, err, http.StatusOK); err != nil {
				return err
			}
			err = eventually(ctx, "the session is gone", func() (bool, error) {
				again, err := c.RtspSessionsKickWithResponse(ctx, session.JSON200.Id)
				return err == nil && again.StatusCode() == http.StatusNotFound, err
			})
			if err != nil {
				return err
			}
		}
	}
	if published != 1 || read == 0 {
		return fmt.Errorf("%d publishers and %d readers among %d connections", published, read, conns.JSON200.ItemCount)
	}
	return eventually(ctx, "nobody reads", func() (bool, error) {
		found, err := live()
		return err == nil && found.Available && len(found.Readers) == 0, err
	})
}

func remove(ctx context.Context, c *client.ClientWithResponses, path string) error {
	removed, err := c.ConfigPathsDeleteWithResponse(ctx, path)
	if err := want("delete", removed, err, http.StatusOK); err != nil {
		return err
	}
	again, err := c.ConfigPathsDeleteWithResponse(ctx, path)
	if err := want("delete again", again, err, http.StatusNotFound); err != nil {
		return err
	}
	return eventually(ctx, "the entry is gone", func() (bool, error) {
		found, err := c.ConfigPathsGetWithResponse(ctx, path)
		return err == nil && found.StatusCode() == http.StatusNotFound, err
	})
}
