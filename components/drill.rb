# homestead:drill v1
# frozen_string_literal: true

# Says what a restored database holds, as one line of JSON, for a restore drill:
#
#   bin/rails runner drill.rb
#   {"statuses":1234,"accounts":56,"newestStatusAt":"2026-11-22T20:15:02.123Z","decrypted":true,"encryptedValues":3,"mediaSample":["…"]}
#
# `statuses` and `accounts` count every row, remote ones too. `decrypted` is false when a value that was written with other Active Record
# encryption keys is found: then the identity that was restored is not the one that wrote the database. `encryptedValues` says how many were
# tried; with none, `decrypted` is true and proves nothing. `mediaSample` names up to five files by their keys in the bucket.
#
# MEDIA_WRITTEN_BEFORE  a moment in ISO 8601, or unset: the sample is of files written before it
#
# Reads only; a read-only standby will do. Exit code 0 whenever there is a report, whatever it says.

module HomesteadDrill
  SAMPLE = 20

  class << self
    def report
      Rails.application.eager_load!
      tried, readable = encryption
      {
        statuses: Status.unscoped.count,
        accounts: Account.unscoped.count,
        newestStatusAt: Status.unscoped.maximum(:created_at)&.utc&.iso8601(3),
        decrypted: readable,
        encryptedValues: tried,
        mediaSample: media,
      }
    end

    private

    # Every attribute that some model encrypts, whatever release this is: two-factor secrets since 4.3, accounts' signing keys from 4.7.
    def encryption
      tried = 0
      readable = true
      ApplicationRecord.descendants.each do |model|
        next if model.abstract_class? || !model.table_exists?

        Array(model.encrypted_attributes).each do |attribute|
          model.unscoped.where.not(attribute => nil).order(model.primary_key => :desc).limit(SAMPLE).each do |record|
            # Rows from before an upgrade may still be plain.
            next unless record.encrypted_attribute?(attribute)

            tried += 1
            readable &&= readable?(record, attribute)
          end
        end
      end
      [tried, readable]
    end

    # Where unencrypted data is tolerated, Rails hands out the ciphertext instead of raising.
    def readable?(record, attribute)
      record.public_send(attribute) != record.ciphertext_for(attribute)
    rescue ActiveRecord::Encryption::Errors::Base
      false
    end

    def media
      uploads = MediaAttachment.unscoped.where.not(file_file_name: nil).where(remote_url: '')
      # Not by its creation: a video is written again, perhaps under another name, when it has been re-encoded.
      uploads = uploads.where('updated_at < ?', Time.iso8601(ENV['MEDIA_WRITTEN_BEFORE'])) if ENV['MEDIA_WRITTEN_BEFORE']
      uploads.order(id: :desc).limit(5).map { |attachment| attachment.file.path }
    end
  end
end

puts HomesteadDrill.report.to_json
